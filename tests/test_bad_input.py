"""Bad input is refused before work starts: one line, exit code 2, nothing written."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ckpts.resolve import registry, resolve
from genloop.job import parse, run_command
from genloop.rundir import MIN_FREE_BYTES
from jobs import generate
from tests.runs import refusal

TEXTS = ["a photo of a circle", "a photo of two stars"]
METADATA = [
    {"tag": "single_object", "include": [{"class": "circle", "count": 1}], "prompt": TEXTS[0]},
    {
        "tag": "counting",
        "include": [{"class": "star", "count": 2}],
        "exclude": [{"class": "star", "count": 3}],
        "prompt": TEXTS[1],
    },
]


def write(folder: Path, texts: object, metadata: object) -> list[str]:
    """Prompt files as text, bytes or rows -> the words that name them."""
    folder.mkdir(exist_ok=True)
    prompts, rows = folder / "prompts.txt", folder / "metadata.jsonl"
    for path, content in ((prompts, texts), (rows, metadata)):
        if isinstance(content, list):
            content = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in content)
        if content is not None:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return [f"prompts={prompts}", f"metadata={rows}"]


def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line that a refused command printed."""
    return refusal(generate, ["tiny", f"out={tmp_path / 'out'}", "limit=2", *words], tmp_path, capsys)


def change(row: int, **changes: object) -> list[dict[str, object]]:
    """The metadata with other values in one row."""
    rows = json.loads(json.dumps(METADATA))
    rows[row] |= changes
    return rows


BAD_FILES = {
    "a missing prompt file": (None, METADATA, "prompts.txt"),
    "an empty prompt file": ("", METADATA, "prompts.txt"),
    "metadata of another length": (TEXTS, METADATA[:1], "metadata.jsonl"),
    "metadata with another prompt": (TEXTS, change(1, prompt="a photo of two moons"), "prompts.txt:2"),
    "broken JSON": (TEXTS, [METADATA[0], '{"tag": "counting", '], "metadata.jsonl:2"),
    "an unknown task": (TEXTS, change(0, tag="single_objekt"), "did you mean 'single_object'"),
    "an unknown class": (TEXTS, change(0, include=[{"class": "cirle", "count": 1}]), "did you mean 'circle'"),
    "an unknown colour": (TEXTS, change(0, include=[{"class": "circle", "count": 1, "color": "grey"}]), "grey"),
    "a position without target": (
        TEXTS,
        change(0, include=[{"class": "circle", "count": 1, "position": ["above", 3]}]),
        "metadata.jsonl:1",
    ),
    "prompts that are not UTF-8": (b"a photo\xff\n", METADATA, "UTF-8"),
    "metadata that is not UTF-8": (TEXTS, b'{"prompt": "\xff"}\n', "UTF-8"),
}


@pytest.mark.parametrize("name", list(BAD_FILES))
def test_bad_prompt_files(tmp_path, capsys, name):
    texts, metadata, message = BAD_FILES[name]
    words = write(tmp_path / "in", texts, metadata)
    assert message in refused(tmp_path, capsys, *words, "search.strategy=best_of_n", "search.n=2")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sampling.stepz=3"], "sampling.stepz: unknown key; did you mean 'steps'?"),
        (["sampling.steps=0"], "sampling.steps:"),
        (["sampling.steps=many"], "found 'many'"),
        (["sampling.order=confidense"], "did you mean 'confidence'?"),
        (["sampling.schedule=cosin"], "cosin"),
        (["search.strategy=best_of"], "unknown strategy 'best_of'; did you mean 'best_of_n'?"),
        (["search.strategy=best_of_n", "judge.kind=oracle"], "unknown judge 'oracle'"),
        (["search.n=4"], "strategy 'none' draws one candidate, found 4"),
        (["search.strategy=param"], "search.strategy: unknown strategy 'param'; did you mean 'parm'?"),
        (["search.strategy=parm", "search.options.kep=1"], "search.options.kep: unknown key; did you mean 'keep'?"),
        (["search.strategy=parm", "search.options.at=soon"], "search.options.at: input should be a valid array"),
        (["search.strategy=parm", "search.n=4", "search.options.at=18"], "search.options.at: step 18 is not one of 1"),
        (["search.strategy=parm", "search.n=4"], "judge 'shapes_oracle' answers outcome, reason, not potential"),
        (
            ["search.strategy=parm_plus_plus", "search.options.start=prm", "search.options.start_options.keep=steps"],
            "search.options.start_options.keep: input should be 'path' or 'step', found 'steps'; did you mean 'step'?",
        ),
        (
            ["search.strategy=successive_halving", "search.options.rungs=[{step: 3, shar: 1}]"],
            "search.options.rungs.0.shar: unknown key; did you mean 'share'?",
        ),
        (["previews=all"], "previews:"),
        (["seed=-1"], "seed:"),
        (["images_per_prompt=0"], "images_per_prompt:"),
        (["generator.options.dtype=float64"], "generator.options.dtype:"),
        (["generator.options.showo=shapes/shwo"], "did you mean 'shapes/showo'?"),
        (["generator.options.tokenizer=nowhere"], "nowhere"),
        (["search.strategy=best_of_n", "search.n=2", "metadata=null"], "needs GenEval metadata"),
    ],
)
def test_bad_keys(tmp_path, capsys, words, message):
    assert message in refused(tmp_path, capsys, *words)


def _cut(folder: Path) -> None:
    weights = next(folder.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-100])


def _other_shape(folder: Path) -> None:
    path = folder / "phi" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_hidden_layers": 2}))


def _other_codebook(folder: Path) -> None:
    path = folder / "config.json"
    data = json.loads(path.read_text())
    change = {key: data[key] - 1 for key in ("codebook_size", "mask_token_id", "vocab_size")}
    path.write_text(json.dumps(data | change))


def _bin_of_another_shape(folder: Path) -> None:
    weights = next(folder.glob("*.safetensors"))
    torch.save(load_file(weights) | {"more": torch.ones(1)}, folder / "pytorch_model.bin")
    weights.unlink()


def _no_tokenizer(folder: Path) -> None:
    shutil.rmtree(folder / "tokenizer")


def _torn_tokenizer(folder: Path) -> None:
    path = folder / "tokenizer" / "tokenizer.json"
    path.write_bytes(path.read_bytes()[:100])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_cut, "truncated"),
        (_other_shape, "unexpected"),
        (_other_codebook, "misshapen"),
        (_bin_of_another_shape, "1 unexpected (more [1])"),
        (_no_tokenizer, "no text tokenizer"),
        (_torn_tokenizer, "tokenizer.json: not a file of the tokenizers library"),
    ],
)
def test_bad_checkpoints(tmp_path, capsys, damage, message):
    folder = tmp_path / "showo"
    shutil.copytree(resolve("shapes/showo"), folder)
    damage(folder)
    assert message in refused(tmp_path, capsys, f"generator.options.showo={folder}")


def test_a_text_tokenizer_that_is_not_there_is_refused(tmp_path, capsys):
    assert "nowhere" in refused(tmp_path, capsys, "generator.options.text_tokenizer=nowhere")
    (tmp_path / "empty").mkdir()
    assert "no text tokenizer" in refused(tmp_path, capsys, f"generator.options.text_tokenizer={tmp_path / 'empty'}")


@pytest.mark.parametrize("preset", ["showo_256", "showo_256_orm", "showo_256_parm", "showo_512"])
def test_presets_for_published_weights_name_registered_folders_and_take_a_prompt_file_alone(preset):
    config = parse(generate, [preset, "out=x", "prompts=prompts.txt"])
    assert config.metadata is None
    options = config.generator.options
    judge = getattr(config.judge.options, "checkpoint", options.showo)
    assert {options.showo, options.tokenizer, options.text_tokenizer, judge} <= set(registry())


def test_a_metadata_file_alone_is_enough_for_a_judge(tmp_path):
    rows = write(tmp_path / "in", TEXTS, METADATA)[1].removeprefix("metadata=")
    words = ["tiny", f"prompts={rows}", "metadata=null", "search.strategy=best_of_n", "search.n=2", "out=x"]
    assert all(prompt.tag for prompt in generate.check(parse(generate, words)).prompts)


def test_a_checkpoint_may_move_but_not_change_in_the_middle_of_a_run(tmp_path, capsys):
    folder, moved, out = tmp_path / "showo", tmp_path / "elsewhere", tmp_path / "out"
    shutil.copytree(resolve("shapes/showo"), folder)
    words = ["tiny", f"out={out}", "limit=1", "sampling.steps=1", "images_per_prompt=1"]
    assert run_command(generate, [*words, f"generator.options.showo={folder}"]) == 0
    folder.rename(moved)
    assert run_command(generate, [*words, f"generator.options.showo={moved}"]) == 0
    (moved / "README.md").write_text("other content")
    assert run_command(generate, [*words, f"generator.options.showo={moved}"]) == 2
    assert "another content of `generator.options.showo`" in capsys.readouterr().err


def test_a_full_disk_is_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": MIN_FREE_BYTES - 1})())
    assert "MiB free below" in refused(tmp_path, capsys)


def test_an_unwritable_out_is_refused(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert run_command(generate, ["tiny", f"out={tmp_path / 'file' / 'run'}"]) == 2
    assert "is a file; a run needs a folder" in capsys.readouterr().err
