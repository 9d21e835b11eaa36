"""`generate` from given images and `answer`: equal bytes however they run, and what is refused."""

import json
import shutil
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from genloop.job import run_command
from genloop.ledger import read_rows
from genloop.records import unpack_tokens
from genloop.runs.provenance import read_chunk
from genloop.sampling import GENERATORS
from jobs import answer, build_judge_data, generate
from tests.runs import contents, refusal, rows_text, start

PROMPTS = Path("configs/prompts")
IMAGES, MASKS = PROMPTS / "shapes_images", PROMPTS / "shapes_masks"
TINY = {
    "inpaint": (generate, "inpaint_tiny"),
    "extrapolate": (generate, "extrapolate_tiny"),
    "restyle": (generate, "restyle_tiny"),
    "answer": (answer, "tiny"),
}
FASTER = ["sampling.steps=6"]


@pytest.fixture(scope="module", params=list(TINY))
def reference(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """One worker, undisturbed."""
    job, preset = TINY[request.param]
    out = tmp_path_factory.mktemp(request.param) / "run"
    assert run_command(job, [preset, *FASTER, f"out={out}"]) == 0
    return request.param, out


def test_two_workers_give_the_same_bytes(reference: tuple[str, Path], tmp_path: Path) -> None:
    mode, run = reference
    job, preset = TINY[mode]
    words = [preset, *FASTER, f"out={tmp_path / 'run'}"]
    workers = [start(job.__name__, *words, rank=rank, world_size=2) for rank in range(2)]
    said = [worker.communicate() for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], said
    assert contents(tmp_path / "run") == contents(run)


@pytest.mark.parametrize("size", [1, 3])
def test_no_cut_into_units_and_no_batch_changes_anything(
    reference: tuple[str, Path], tmp_path: Path, size: int
) -> None:
    mode, run = reference
    job, preset = TINY[mode]
    words = [preset, *FASTER, f"out={tmp_path / 'run'}", f"unit_size={size}", "slots=1", "rows_per_forward=3"]
    assert run_command(job, words) == 0
    assert rows_text(tmp_path / "run") == rows_text(run)
    assert contents(tmp_path / "run", ["images"]) == contents(run, ["images"])


def test_rows_and_images_tell_what_they_started_from(reference: tuple[str, Path]) -> None:
    mode, run = reference
    rows = list(read_rows(run))
    if mode == "answer":
        assert [(row["index"], row["image"]) for row in rows] == [(0, "0.png"), (1, "1.png"), (2, "2.png")]
        assert any(row["answer"] for row in rows)
        return
    assert [row["given"] for row in rows] == [f"{index}.png" for index in (0, 0, 1, 1, 2, 2)]
    for row in rows:
        chunk = read_chunk(run / row["image"])
        assert chunk is not None and chunk["mode"]["kind"] == mode


def test_what_is_around_the_hole_stays_in_every_candidate(tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = ["inpaint_tiny", *FASTER, "limit=1", "search.n=4", f"out={out}"]
    assert run_command(generate, words) == 0
    hole = np.asarray(Image.open(MASKS / "0.png").convert("L"))[::4, ::4].reshape(-1) > 0
    tokens = [unpack_tokens(one["tokens"]) for row in read_rows(out) for one in row["candidates"]]
    assert len({tuple(row[~hole]) for row in tokens}) == 1 and len({tuple(row[hole]) for row in tokens}) > 1
    given = np.asarray(Image.open(IMAGES / "0.png").convert("RGB"))
    drawn = np.asarray(Image.open(out / next(iter(read_rows(out)))["image"]))
    outside = ~hole.reshape(6, 6).repeat(4, 0).repeat(4, 1)
    assert (given[outside] == drawn[outside]).all()


def test_an_image_grows_by_half_a_grid_and_overlap(tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = ["extrapolate_tiny", *FASTER, "limit=1", "images_per_prompt=1", "mode.options.directions=[left]"]
    assert run_command(generate, [*words, f"out={out}"]) == 0
    (row,) = read_rows(out)
    image = np.asarray(Image.open(out / row["image"]))
    assert (row["grid"], image.shape) == ([6, 6 + 3 + 1], (24, 40, 3))
    assert (image[:, 16:] == np.asarray(Image.open(IMAGES / "0.png").convert("RGB"))).all()
    assert (row["cost"]["generator_steps"], row["num_steps"]) == (6, 6)


def test_a_mode_that_is_not_used_leaves_no_trace_in_the_fingerprint(tmp_path: Path) -> None:
    words = ["tiny", *FASTER, "limit=1", "images_per_prompt=1", f"out={tmp_path / 'run'}"]
    assert run_command(generate, words) == 0
    assert not [key for key in json.loads((tmp_path / "run" / "run.json").read_text())["keys"] if "mode.kind" in key]


def test_images_of_images_are_no_paths_to_replay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert run_command(generate, ["inpaint_tiny", *FASTER, "limit=1", f"out={out}"]) == 0
    words = ["tiny", f"source={out}", f"out={tmp_path / 'data'}"]
    assert run_command(build_judge_data, words) == 2
    assert "mode.kind=inpaint" in capsys.readouterr().err


def broken_inputs(folder: Path, what: str) -> None:
    """Copies of the shipped folders, `what` of them spoilt."""
    for source, name in ((IMAGES, "images"), (MASKS, "masks")):
        shutil.copytree(source, folder / name)
    (folder / "questions.txt").write_text("a star\n\na moon\n")
    if what == "missing":
        (folder / "images" / "1.png").unlink()
    elif what == "torn":
        (folder / "images" / "1.png").write_bytes((IMAGES / "1.png").read_bytes()[:60])
    elif what == "size":
        Image.new("RGB", (12, 24), "white").save(folder / "masks" / "2.png")
    elif what == "black":
        Image.new("RGB", (24, 24)).save(folder / "masks" / "2.png")


HERE = ["mode.options.images={}/images", "mode.options.masks={}/masks", "limit=null", "prompts={}/prompts.txt"]
RESTYLED = ["mode.options.images={}/images", "limit=null", "prompts={}/prompts.txt"]
BAD: dict[str, tuple[ModuleType, str, str, list[str], str]] = {
    "an image that is missing": (generate, "inpaint_tiny", "missing", HERE, "2 images for 3 lines"),
    "an image that is torn": (generate, "inpaint_tiny", "torn", HERE, "images/1.png: "),
    "a mask of another size": (generate, "inpaint_tiny", "size", HERE, "masks/2.png: a mask of 12x24 pixels"),
    "a mask with nothing to paint": (generate, "inpaint_tiny", "black", HERE, "masks/2.png: nothing to paint"),
    "more images than prompts": (generate, "inpaint_tiny", "", ["limit=null"], "3 images for 12 lines"),
    "no folder": (generate, "inpaint_tiny", "", ["mode.options.masks=nowhere"], "nowhere: no such folder"),
    "no masks": (generate, "tiny", "", ["mode.kind=inpaint", f"mode.options.images={IMAGES}"], "masks: needs a value"),
    "an unknown mode": (generate, "tiny", "", ["mode.kind=inpant"], "did you mean 'inpaint'?"),
    "an unknown direction": (generate, "extrapolate_tiny", "", ["mode.options.directions=[rigth]"], "'right'"),
    "no direction": (generate, "extrapolate_tiny", "", ["mode.options.directions=[]"], "mode.options.directions"),
    "too much overlap": (generate, "extrapolate_tiny", "", ["mode.options.overlap=3"], "overlap is 3, expected 0 to 2"),
    "a search that grows": (generate, "extrapolate_tiny", "", ["search.strategy=best_of_n"], "search.strategy: "),
    "an image that is torn, to restyle": (generate, "restyle_tiny", "torn", RESTYLED, "images/1.png: "),
    "fewer images than prompts to restyle": (generate, "restyle_tiny", "missing", RESTYLED, "2 images for 3 lines"),
    "no strength": (generate, "restyle_tiny", "", ["mode.options.strength=0"], "mode.options.strength"),
    "too much strength": (generate, "restyle_tiny", "", ["mode.options.strength=1.01"], "mode.options.strength"),
    "strength of no step": (generate, "restyle_tiny", "", ["mode.options.strength=0.1"], "mode.options.strength"),
    "a mask to restyle": (generate, "restyle_tiny", "", [f"mode.options.masks={MASKS}"], "mode.options.masks"),
    "a step that is not walked": (
        generate,
        "restyle_tiny",
        "",
        ["search.strategy=parm", "search.options.at=4", "judge.kind=shapes_oracle"],
        "search.options.at",
    ),
    "a generator that restyles nothing": (
        generate,
        "tiny",
        "",
        ["mode.kind=restyle", f"mode.options.images={IMAGES}"],
        "'showo' has no mode 'restyle'",
    ),
    "a generator that fills nothing": (
        generate,
        "tiny_diffusion",
        "",
        ["mode.kind=inpaint", f"mode.options.images={IMAGES}", f"mode.options.masks={MASKS}"],
        "'diffusion' has no mode 'inpaint' (text, restyle)",
    ),
    "an unknown key": (generate, "inpaint_tiny", "", ["mode.options.mask=x"], "did you mean 'masks'?"),
    "another generator": (
        generate,
        "inpaint_tiny",
        "",
        ["generator.kind=plain"],
        "no mode 'inpaint' (text)",
    ),
    "one without answers": (answer, "tiny", "", ["generator.kind=plain"], "'plain' has no mode 'answer' (text)"),
    "an empty question": (answer, "tiny", "", ["questions={}/questions.txt"], "questions.txt:2: empty line"),
    "an image that is torn, asked about": (answer, "tiny", "torn", ["images={}/images"], "images/1.png: "),
    "fewer images than questions": (answer, "tiny", "missing", ["images={}/images"], "2 images for 3 lines"),
    "an answer of no words": (answer, "tiny", "", ["answer.max_new_tokens=0"], "answer.max_new_tokens"),
}


@pytest.mark.parametrize("case", list(BAD))
def test_bad_input_is_refused_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    monkeypatch.setitem(GENERATORS, "plain", "tests.worlds.own_parts:PlainGenerator")
    job, preset, spoilt, words, message = BAD[case]
    broken_inputs(tmp_path, spoilt)
    texts = (PROMPTS / "shapes_tiny" / "generation_prompts.txt").read_text().splitlines(keepends=True)
    (tmp_path / "prompts.txt").write_text("".join(texts[:3]))
    words = [word.format(tmp_path) for word in words]
    if "limit=null" in words and len(words) > 1:
        words += ["metadata=null", "search.strategy=none", "search.n=1"]
    assert message in refusal(job, [preset, *words, f"out={tmp_path / 'out'}"], tmp_path, capsys)
