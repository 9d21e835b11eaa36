"""Examples for judges: written and read back, split by sentence, paired and balanced; conversations of others."""

import json

import numpy as np
import pytest

from genloop.data.images import encode_png
from genloop.data.judge.conversations import read_conversations
from genloop.data.judge.dataset import read_judge_set
from genloop.data.judge.examples import (
    JudgeExample,
    balance,
    from_sample,
    ranking_pairs,
    read_cells,
    split_of,
    to_sample,
)
from genloop.data.shards import Sample, write_shard
from genloop.records import Clause, Prompt

STAR = Prompt(3, "a photo of a star", "single_object", (Clause("star", 1),))
BLACK = np.zeros((24, 24, 3), np.uint8)


def example(key: str, prompt: Prompt = STAR, candidate: int = 0, step: int = 18, **questions: float) -> JudgeExample:
    return JudgeExample(key, "generate", prompt, 0, candidate, step, 18, questions)


def test_an_example_comes_back_as_it_was_written():
    names = {"shapes": ["star"], "colors": ["red", "blue"]}
    cells = np.arange(72, dtype=np.uint8).reshape(6, 6, 2)
    written = JudgeExample("a", "scenes", STAR, 1, 0, 0, 0, {"outcome": 0.25}, "no star", names)
    sample = to_sample(written, encode_png(BLACK), cells)
    assert from_sample(sample) == written
    assert (read_cells(sample) == cells).all()
    plain = example("b", Prompt(7, "anything at all"), potential=1.0, clarity=0.5, step=6)
    assert from_sample(to_sample(plain, b"")) == plain
    assert read_cells(to_sample(plain, b"")) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"questions": {"outcom": 1.0}}, "unknown question 'outcom'"),
        ({"questions": {"outcome": 1.5}}, r"label of 'outcome' must be in \[0, 1\], found 1.5"),
        ({"questions": {"outcome": "yes"}}, "json is not a judge's example"),
        ({"prompt": {"tag": "colour", "prompt": "x", "include": []}}, "unknown task 'colour'"),
        ({"step": None}, "json is not a judge's example"),
    ],
)
def test_a_sample_that_is_no_example_is_named(change, message):
    sample = to_sample(example("007", outcome=1.0), b"")
    row = json.loads(sample.fields["json"]) | change
    with pytest.raises(ValueError, match=f"^sample 007: {message}"):
        from_sample(Sample("007", {"png": b"", "json": json.dumps(row).encode()}))


def test_a_sentence_is_on_one_side_whatever_its_prompt_and_about_as_often_as_asked_for():
    sides = [split_of(f"a photo of {i} stars", 0, 0.2) for i in range(2000)]
    assert sides == [split_of(f"a photo of {i} stars", 0, 0.2) for i in range(2000)]
    assert 0.17 < sides.count("val") / 2000 < 0.23
    assert sides != [split_of(f"a photo of {i} stars", 1, 0.2) for i in range(2000)]
    assert {split_of("x", 0, share) for share in (0.0, 1.0)} == {"train", "val"}


def test_pairs_are_images_of_one_sentence_at_one_step_with_different_labels():
    again = Prompt(9, STAR.text, STAR.tag, STAR.include)
    other = Prompt(4, "a photo of a ring", "single_object", (Clause("ring", 1),))
    examples = [
        example("a", outcome=1.0),
        example("b", again, outcome=0.0),
        example("c", other, outcome=0.0),
        example("d", step=6, potential=0.5, clarity=1.0),
        example("e", step=6, potential=0.75, clarity=1.0),
        example("f", step=9, potential=0.0),
    ]
    found = {(pair.better, pair.worse, pair.question, pair.step) for pair in ranking_pairs(examples)}
    assert found == {("a", "b", "outcome", 18), ("e", "d", "potential", 6)}
    assert [pair.better for pair in ranking_pairs(examples, margin=0.3)] == ["a"]


def test_balanced_pairs_are_equally_many_of_each_task_and_follow_from_the_seed():
    examples = []
    for tag, sentences in (("single_object", 2), ("counting", 10)):
        for number in range(sentences):
            prompt = Prompt(0, f"{tag} {number}", tag)
            examples += [
                example(f"{tag}{number}{label}{c}", prompt, c, outcome=label) for label in (0.0, 1.0) for c in range(4)
            ]
    pairs = ranking_pairs(examples)
    assert len(pairs) == 12 * 16
    kept = balance(pairs, 0, most=5)
    assert [sum(pair.tag == tag for pair in kept) for tag in ("single_object", "counting")] == [10, 10]
    assert max(sum(pair.prompt == p for pair in kept) for p in {pair.prompt for pair in kept}) <= 5
    assert kept == balance(pairs, 0, most=5)
    assert kept != balance(pairs, 1, most=5)


def test_a_set_keeps_equal_images_once_or_reads_them_when_asked_for(tmp_path):
    white = np.full((24, 24, 3), 255, np.uint8)
    images = [BLACK, white, BLACK]
    samples = [to_sample(example(f"{i}", outcome=float(i == 1)), encode_png(image)) for i, image in enumerate(images)]
    write_shard(tmp_path / "00000.tar", samples)
    kept, read = read_judge_set(tmp_path), read_judge_set(tmp_path, cache_bytes=0)
    assert (len(kept.images), len(read.images)) == (2, 3)
    for found in (kept, read):
        assert all((found.images[found.image_of[row]] == images[row]).all() for row in range(3))
        assert found.labels[:, 0].tolist() == [0, 1, 0] and np.isnan(found.labels[:, 1:]).all()


def test_conversations_are_read_as_they_are_published(tmp_path):
    turns = [{"from": "human", "value": "<image>\nIs it?"}, {"from": "gpt", "value": "yes"}]
    more = [{"from": "human", "value": "And now?"}, {"from": "gpt", "value": "no"}]
    entries = [{"id": 7, "image": "a/b.png", "conversations": turns}, {"image": "c.png", "conversations": turns + more}]
    (tmp_path / "orm.json").write_text(json.dumps(entries))
    first, second = read_conversations(tmp_path / "orm.json", tmp_path / "images")
    assert (first.key, first.image, first.turns) == ("7", tmp_path / "images/a/b.png", (("<image>\nIs it?", "yes"),))
    assert second.turns[1] == ("And now?", "no")


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({}, "expected a JSON list"),
        ([{"conversations": []}], "entry 1: needs an `image`"),
        ([{"image": "a.png", "conversations": [{"from": "human", "value": "<image>"}]}], "the last one of gpt"),
        (
            [{"image": "a.png", "conversations": [{"from": "gpt", "value": "x"}, {"from": "gpt", "value": "y"}]}],
            r"conversations\[0\] must be a text from 'human'",
        ),
        (
            [{"image": "a.png", "conversations": [{"from": "human", "value": "x"}, {"from": "gpt", "value": "y"}]}],
            "<image> must stand once",
        ),
    ],
)
def test_a_bad_conversation_file_is_refused_in_one_line(tmp_path, entries, message):
    (tmp_path / "orm.json").write_text(json.dumps(entries))
    with pytest.raises(ValueError, match=message) as caught:
        read_conversations(tmp_path / "orm.json", tmp_path)
    assert "\n" not in str(caught.value)
