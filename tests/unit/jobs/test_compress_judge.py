"""A smaller judge is a folder that chat models load; bad words are refused before anything is written."""

import pytest

from genloop.job import run_command
from genloop.models.common.measure import weight_bytes
from genloop.models.qwen.generate import answer, load_talker
from jobs import compress_judge, train_vlm
from tests.runs import ROOT, contents, refusal
from tests.worlds.tiny_qwen import qwen_folder, write_chats


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def test_the_tiny_preset_makes_a_judge_that_answers_and_is_not_trained_on(tmp_path, capsys):
    assert run_command(compress_judge, ["tiny", f"out={tmp_path / 'a'}"]) == 0
    folder = tmp_path / "a" / "judge"
    assert f"{weight_bytes(folder):,} bytes" in capsys.readouterr().out
    talker = load_talker(folder)
    assert talker.folder.quantised == "nf4"
    assert isinstance(answer(talker, [{"role": "user", "content": "Is it?"}], max_new_tokens=3), str)
    before = contents(tmp_path / "a", ["judge"])
    assert run_command(compress_judge, ["tiny", f"out={tmp_path / 'a'}"]) == 0
    assert contents(tmp_path / "a", ["judge"]) == before
    chats = write_chats(tmp_path / "chats")
    words = ["tiny_vl", f"data.chats.chats={chats}", f"start={folder}", f"out={tmp_path / 'run'}"]
    assert "start: " in refusal(train_vlm, words, tmp_path, capsys)


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (["checkpoint=nowhere"], "nowhere"),
        (["quantise=none", "image_size=null"], "quantise: "),
        (["quantise=int4"], "quantise: "),
        (["text_layers=1"], "text_layers: "),
        (["text_layers=9"], "text_layers: "),
        (["vision_layers=9"], "vision_layers: "),
        (["image_size=4096"], "image_size: "),
        (["query_tokens=16"], "query_tokens: "),
        (["checkpoint=shapes/showo"], "model_type"),
        (["leave_out=first"], "leave_out: "),
    ],
)
def test_bad_words_are_refused(tmp_path, capsys, words, key):
    assert key in refusal(compress_judge, ["tiny", *words, f"out={tmp_path / 'run'}"], tmp_path, capsys)


def test_a_torn_file_of_weights_is_refused(tmp_path, capsys):
    folder = qwen_folder(tmp_path / "q", "vl")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    words = ["tiny", f"checkpoint={folder}", f"out={tmp_path / 'run'}"]
    assert "model.safetensors" in refusal(compress_judge, words, tmp_path, capsys)
