"""The prompt sets: complete, apart, deterministic."""

import pytest

from genloop.data.prompts import caption
from genloop.records import COLORS, TAGS, Clause
from genloop.shapes.prompts import (
    SETS,
    held_out_colors,
    held_out_counts,
    held_out_pairs,
    names_held_out,
    pool,
    prompt_set,
)
from genloop.shapes.scenes import SHAPES


def test_the_sizes_are_as_documented():
    sizes = {name: [len(pool(name, tag)) for tag in TAGS] for name in SETS}
    assert sizes == {
        "train": [10, 72, 24, 90, 188, 4256],
        "test": [10, 72, 24, 90, 100, 1000],
        "heldout": [0, 18, 6, 10, 72, 2844],
        "learn": [5, 36, 12, 45, 96, 2153],
        "learn_test": [5, 36, 12, 45, 144, 2628],
    }


def test_the_split_is_fixed():
    """A change here changes the world: the shipped weights would have seen their test prompts."""
    assert len(held_out_colors()) == 10
    assert ("circle", "red") in held_out_colors()
    assert len(held_out_pairs()) == 9
    assert frozenset(("diamond", "circle")) in held_out_pairs()
    assert sorted(held_out_counts()) == [
        (2, "circle"),
        (2, "triangle"),
        (3, "arrow"),
        (3, "ring"),
        (4, "diamond"),
        (4, "star"),
    ]


@pytest.mark.parametrize("tag", TAGS)
def test_training_never_names_a_held_out_combination(tag):
    assert not any(names_held_out(prompt.include) for name in ("train", "test") for prompt in pool(name, tag))
    assert all(names_held_out(prompt.include) for prompt in pool("heldout", tag))


@pytest.mark.parametrize("tag", ["position", "color_attr"])
def test_training_never_sees_a_test_sentence_where_there_are_enough(tag):
    train, test = ({prompt.text for prompt in pool(name, tag)} for name in ("train", "test"))
    assert not train & test


@pytest.mark.parametrize("tag", TAGS)
def test_what_is_learnt_from_says_nothing_that_it_is_measured_on_in_no_order(tag):
    def meanings(name: str) -> set[object]:
        return {
            frozenset(prompt.include) if tag != "position" else relation_of(*prompt.include)
            for prompt in pool(name, tag)
        }

    learn, measured = meanings("learn"), meanings("learn_test")
    assert learn and measured and not learn & measured
    texts = {name: {prompt.text for prompt in pool(name, tag)} for name in SETS}
    assert texts["learn"] <= texts["train"] and texts["learn_test"] <= texts["train"] | texts["test"]
    assert len(meanings("train") | meanings("test")) == 2 * len(measured)


def relation_of(first: Clause, second: Clause) -> tuple[str, str, str]:
    """(upper or left object, axis, other object): the same for a sentence and its mirrored one."""
    assert second.position is not None
    names = (second.class_name, first.class_name)
    upper = names if second.position[0] in ("left of", "above") else names[::-1]
    return upper[0], "row" if second.position[0] in ("left of", "right of") else "column", upper[1]


def test_training_names_every_word():
    words = {word for tag in TAGS for prompt in pool("train", tag) for word in prompt.text.split()}
    everything = {word for name in SETS for tag in TAGS for prompt in pool(name, tag) for word in prompt.text.split()}
    assert words == everything
    assert {*SHAPES, *COLORS, "two", "three", "four", "hearts", "crosses"} <= words


@pytest.mark.parametrize("name", SETS)
def test_no_sentence_repeats_and_texts_follow_from_the_clauses(name):
    prompts = prompt_set(name, seed=3, per_tag=100)
    assert len({prompt.text for prompt in prompts}) == len(prompts)
    assert [prompt.index for prompt in prompts] == list(range(len(prompts)))
    assert all(prompt.text == caption(prompt.tag, prompt.include) for prompt in prompts)
    assert all((prompt.tag == "counting") == bool(prompt.exclude) for prompt in prompts)


def test_a_set_is_a_function_of_its_seed():
    assert prompt_set("test", 0, 50) == prompt_set("test", 0, 50)
    assert prompt_set("test", 0, 50) != prompt_set("test", 1, 50)
    tags = [prompt.tag for prompt in prompt_set("test", 0, 50)]
    assert [tags.count(tag) for tag in TAGS] == [10, 50, 24, 50, 50, 50]


@pytest.mark.parametrize("name", SETS)
def test_repetition_fills_every_task_evenly_and_begins_with_the_set_itself(name):
    once, filled = prompt_set(name, 2, 100), prompt_set(name, 2, 100, repeat=True)
    assert [prompt.index for prompt in filled] == list(range(len(filled)))
    for tag in TAGS:
        first, texts = ([prompt.text for prompt in prompts if prompt.tag == tag] for prompts in (once, filled))
        assert len(texts) == (100 if first else 0)
        assert texts[: len(first)] == first
        counts = [texts.count(text) for text in first]
        assert not counts or max(counts) - min(counts) <= 1


def test_unknown_sets_and_empty_ones_are_refused():
    with pytest.raises(ValueError, match="unknown prompt set 'tests'"):
        prompt_set("tests", 0, 10)
    with pytest.raises(ValueError, match="per_tag"):
        prompt_set("test", 0, 0)
