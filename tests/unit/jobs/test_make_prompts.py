"""make_prompts: the presets write the promised bytes, again and again; bad values write nothing."""

import hashlib
from pathlib import Path

import pytest

from genloop.data.prompts import METADATA_FILE, PROMPTS_FILE, read_prompts
from genloop.job import run_command
from genloop.records import TAGS
from jobs import make_prompts
from tests.runs import ROOT, refusal


def files(folder: Path) -> dict[str, str]:
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in (PROMPTS_FILE, METADATA_FILE)}


def test_the_preset_geneval_writes_the_published_files(tmp_path, capsys):
    for _ in range(2):
        assert run_command(make_prompts, ["geneval", f"out={tmp_path / 'run'}"]) == 0
        assert "553 prompts" in capsys.readouterr().out
        assert files(tmp_path / "run") == {
            PROMPTS_FILE: "55b6e3650e980c13daf30569eb666e000faf19bfc2b7b4cbe999fcdb7aa9d680",
            METADATA_FILE: "5c48e0813e812e3c373fa5c8ed07a8f0a483be30272b4427b0559c8048e67c13",
        }


@pytest.mark.parametrize("name", ["shapes_train", "shapes_test", "shapes_heldout"])
def test_the_presets_of_the_embedded_world_write_the_shipped_files(name, tmp_path):
    assert run_command(make_prompts, [name, f"out={tmp_path / 'run'}"]) == 0
    assert files(tmp_path / "run") == files(ROOT / "configs" / "prompts" / name)


def test_the_tiny_preset_is_small_and_readable(tmp_path):
    assert run_command(make_prompts, ["tiny", f"out={tmp_path / 'run'}"]) == 0
    prompts = read_prompts(tmp_path / "run" / PROMPTS_FILE, tmp_path / "run" / METADATA_FILE)
    assert 80 < len(prompts) <= 90


@pytest.mark.parametrize("name", ["shapes_search", "shapes_search_train"])
def test_the_presets_of_the_search_have_a_hundred_prompts_a_task(name, tmp_path):
    assert run_command(make_prompts, [name, f"out={tmp_path / 'run'}"]) == 0
    prompts = read_prompts(tmp_path / "run" / PROMPTS_FILE, tmp_path / "run" / METADATA_FILE)
    assert [sum(prompt.tag == tag for prompt in prompts) for tag in TAGS] == [100] * 6
    assert len({prompt.text for prompt in prompts}) == 10 + 72 + 24 + 90 + 100 + 100


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["geneval", "num_prompts=-1"], "num_prompts: input should be greater than or equal to 0, found -1"),
        (["shapes_test", "num_prompts=0"], "num_prompts: must be at least 1 for shapes_test, found 0"),
        (["geneval", "source=shapes"], "source: "),
        (["geneval", "repeat=true"], "repeat: GenEval's generator drops repeated prompts"),
        (["geneval", "seeds=3"], "seeds: unknown key; did you mean 'seed'?"),
        (["genval"], "unknown preset 'genval' of job 'make_prompts'; did you mean 'geneval'?"),
    ],
)
def test_bad_values_are_refused_in_one_line_and_nothing_is_written(words, message, tmp_path, capsys):
    assert message in refusal(make_prompts, [*words, f"out={tmp_path / 'run'}"], tmp_path, capsys)
