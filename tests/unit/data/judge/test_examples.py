"""Examples for judges: written and read back, split by sentence, paired and balanced; conversations of others."""

import json
import pickle

import numpy as np
import pytest

from genloop.data.images import encode_png
from genloop.data.judge.dataset import read_judge_set
from genloop.data.judge.examples import (
    UNKNOWN_STEP,
    JudgeExample,
    balance,
    from_sample,
    ranking_pairs,
    read_cells,
    split_of,
    to_sample,
)
from genloop.data.shards import Sample, index_path, write_shard
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
        ({"cells": ["circle"]}, "json is not a judge's example"),
        ({"cells": {"shapes": 0}}, "json is not a judge's example"),
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


@pytest.mark.parametrize("has_digests", [True, False])
def test_equal_images_of_a_set_are_one_and_pixels_are_read_when_asked_for(tmp_path, has_digests):
    white = np.full((24, 24, 3), 255, np.uint8)
    images = [BLACK, white, BLACK]
    samples = [to_sample(example(f"{i}", outcome=float(i == 1)), encode_png(image)) for i, image in enumerate(images)]
    write_shard(tmp_path / "00000.tar", samples)
    if not has_digests:
        index_path(tmp_path / "00000.tar").unlink()
    found = read_judge_set(tmp_path)
    assert len(found.images) == 2 and found.image_of.tolist() == [0, 1, 0]
    assert all((found.pixels(row) == images[row]).all() for row in range(3))
    assert found.labels[:, 0].tolist() == [0, 1, 0] and np.isnan(found.labels[:, 1:]).all()
    assert list(found.examples) == [from_sample(sample) for sample in samples]


def test_a_set_is_grouped_by_task_sentence_and_path(tmp_path):
    """Each in the order in which it comes up, as batches are drawn by their numbers."""
    ring = Prompt(4, "a photo of a ring", "single_object", (Clause("ring", 1),))
    examples = [
        example("0", ring, candidate=1, step=6, potential=1.0),
        example("1", Prompt(9, "of no task"), outcome=0.0),
        example("2", candidate=1, outcome=1.0),
        example("3", ring, candidate=0, outcome=1.0),
        JudgeExample("4", "scenes", ring, 0, 0, 0, 0, {"outcome": 1.0}),
        example("5", ring, candidate=1, outcome=0.0),
        JudgeExample("6", "conversations", Prompt(0, "of no task"), 0, 0, UNKNOWN_STEP, 0, {"clarity": 1.0}),
        JudgeExample("7", "scenes", Prompt(5, "x"), 0, 0, 0, 0, {"outcome": 1.0}),
        JudgeExample("8", "scenes", ring, 1, 0, 0, 0, {"outcome": 0.0}),
    ]
    write_shard(tmp_path / "00000.tar", [to_sample(one, encode_png(BLACK)) for one in examples])
    found = read_judge_set(tmp_path)
    rings, star = {(4, 0, 1): {6: 0, 18: 5}, (4, 0, 0): {18: 3}}, {(STAR.index, 0, 1): {18: 2}}
    plain, unknown = {(9, 0, 0): {18: 1}}, {(0, 0, 0): {UNKNOWN_STEP: 6}}
    assert [list(sentences) for sentences in found.tasks()] == [[rings, star], [plain, unknown]]
    assert [list(sentences) for sentences in found.tasks(unknown_steps=False)] == [[rings, star], [plain]]
    assert list(found.tasks()[0][0]) == list(rings)  # paths too
    assert list(found.contrasts()) == [[4, 8], [7]]


def test_a_sample_without_an_image_and_a_broken_image_are_named(tmp_path):
    png = encode_png(BLACK)
    write_shard(tmp_path / "00000.tar", [to_sample(example("7", outcome=1.0), png[:30])])
    with pytest.raises(ValueError, match="sample 7: png: "):
        read_judge_set(tmp_path).pixels(0)
    sample = to_sample(example("8", outcome=1.0), png)
    write_shard(tmp_path / "00000.tar", [Sample("8", {"json": sample.fields["json"]})])
    with pytest.raises(ValueError, match=r"sample 8 has json; .*png and json"):
        read_judge_set(tmp_path)


def test_a_set_goes_to_another_process_without_its_examples(tmp_path):
    write_shard(tmp_path / "00000.tar", [to_sample(example(f"{i}", outcome=1.0), encode_png(BLACK)) for i in range(9)])
    found = read_judge_set(tmp_path)
    copy = pickle.loads(pickle.dumps(found))
    assert list(copy.examples) == list(found.examples) and (copy.pixels(3) == BLACK).all()
    assert [list(s) for s in copy.tasks()] == [list(s) for s in found.tasks()]
