"""Drawn pairs of answers: the same bytes every time, both answers right equally often, readable as pairs and chats."""

import json

import pytest

from genloop.data.chats import ChatFile
from genloop.data.responses.read import ResponseData, open_pairs
from genloop.job import run_command
from jobs import make_response_pairs
from tests.runs import contents, refusal

COLUMNS = {"first": "first", "second": "second", "better": "better", "group": "group", "id": "id"}


@pytest.mark.parametrize("question", ["what", "whether"])
def test_pairs_and_chats_say_the_same_and_follow_from_the_config(tmp_path, question):
    for name in "ab":
        words = ["tiny", f"question={question}", "num_pairs=48", f"out={tmp_path / name}"]
        assert run_command(make_response_pairs, words) == 0
    assert contents(tmp_path / "a", ["pairs"]) == contents(tmp_path / "b", ["pairs"])
    folder = tmp_path / "a" / "pairs"
    data = {"path": str(folder / "pairs.jsonl"), "layout": "columns", "columns": COLUMNS}
    pairs, chats = open_pairs(ResponseData.model_validate(data, strict=False)), ChatFile(folder / "chats.jsonl")
    assert len(pairs) == len(chats) == 48
    for number, pair in enumerate(pairs):
        asked, answer = chats.row(number).messages
        assert (asked.text, answer.text) == (pair.query, pair.responses[pair.best])
    assert 12 <= sum(pair.best for pair in pairs) <= 36


def test_what_is_learned_and_what_is_tested_share_no_scene_in_words(tmp_path):
    right = {}
    for name in ("learn", "learn_test"):
        words = ["tiny", "question=what", "num_pairs=120", f"prompt_set={name}", f"out={tmp_path / name}"]
        assert run_command(make_response_pairs, words) == 0
        rows = map(json.loads, (tmp_path / name / "pairs" / "pairs.jsonl").read_text().splitlines())
        right[name] = {row["second" if row["better"] else "first"] for row in rows}
    assert len(right["learn"]) > 40 and not right["learn"] & right["learn_test"]


@pytest.mark.parametrize(("word", "key"), [("num_pairs=0", "num_pairs: "), ("prompt_set=heldout", "prompt_set: ")])
def test_bad_words_are_refused(tmp_path, capsys, word, key):
    assert key in refusal(make_response_pairs, ["tiny", word, f"out={tmp_path / 'run'}"], tmp_path, capsys)
