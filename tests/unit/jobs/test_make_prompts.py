"""make_prompts: the presets write the promised bytes, again and again; bad values write nothing."""

import hashlib
from pathlib import Path

import pytest

from genloop.data.prompts import METADATA_FILE, PROMPTS_FILE, read_prompts, read_texts
from genloop.job import run_command
from genloop.records import TAGS
from jobs import make_prompts
from tests.runs import ROOT


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


@pytest.mark.parametrize("name", ["shapes_train", "shapes_test", "shapes_heldout", "shapes_learn_test"])
def test_the_presets_of_the_embedded_world_write_the_shipped_files(name, tmp_path):
    assert run_command(make_prompts, [name, f"out={tmp_path / 'run'}"]) == 0
    assert files(tmp_path / "run") == files(ROOT / "configs" / "prompts" / name)


def test_the_tiny_preset_is_small_and_readable(tmp_path):
    assert run_command(make_prompts, ["tiny", f"out={tmp_path / 'run'}"]) == 0
    prompts = read_prompts(tmp_path / "run" / PROMPTS_FILE, tmp_path / "run" / METADATA_FILE)
    assert 80 < len(prompts) <= 90


def test_what_is_learnt_from_is_large_and_apart_from_what_it_is_measured_on(tmp_path):
    assert run_command(make_prompts, ["shapes_learn", f"out={tmp_path / 'run'}"]) == 0
    learn = read_prompts(tmp_path / "run" / PROMPTS_FILE, tmp_path / "run" / METADATA_FILE)
    measured = read_texts(ROOT / "configs/prompts/shapes_learn_test" / PROMPTS_FILE)
    assert len(learn) >= 1500 and len(set(measured)) == len(measured) >= 600
    assert not {prompt.text for prompt in learn} & set(measured)
    assert len({sum(prompt.tag == tag for prompt in learn) for tag in TAGS}) == 1


@pytest.mark.parametrize("name", ["shapes_search", "shapes_search_train"])
def test_the_presets_of_the_search_have_a_hundred_prompts_a_task(name, tmp_path):
    assert run_command(make_prompts, [name, f"out={tmp_path / 'run'}"]) == 0
    prompts = read_prompts(tmp_path / "run" / PROMPTS_FILE, tmp_path / "run" / METADATA_FILE)
    assert [sum(prompt.tag == tag for prompt in prompts) for tag in TAGS] == [100] * 6
    assert len({prompt.text for prompt in prompts}) == 10 + 72 + 24 + 90 + 100 + 100


def test_sentences_of_other_files_are_left_out(tmp_path):
    assert run_command(make_prompts, ["tiny", f"out={tmp_path / 'test'}"]) == 0
    test = tmp_path / "test" / PROMPTS_FILE
    words = ["geneval", "seed=44", "num_prompts=20", f"without=[{test}]"]
    assert run_command(make_prompts, [*words, f"out={tmp_path / 'learn'}"]) == 0
    learn = read_prompts(tmp_path / "learn" / PROMPTS_FILE, tmp_path / "learn" / METADATA_FILE)
    assert learn and not {prompt.text for prompt in learn} & set(read_texts(test))
    assert [prompt.index for prompt in learn] == list(range(len(learn)))


def test_nothing_left_is_refused(tmp_path, capsys):
    assert run_command(make_prompts, ["tiny", f"out={tmp_path / 'a'}"]) == 0
    words = ["tiny", f"out={tmp_path / 'b'}", f"without=[{tmp_path / 'a' / PROMPTS_FILE}]"]
    assert run_command(make_prompts, words) == 2 and "without" in capsys.readouterr().err
    assert not (tmp_path / "b").exists()
