"""The generator: five tasks of one size after the single objects, nothing twice, every seed for itself."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geneval.names import OBJECT_NAMES
from geneval.prompts import generate
from genloop.data.prompts import caption, encode_prompts
from genloop.records import TAGS

NAMES = ("person", "dog", "apple")


@given(seed=st.integers(0, 2**63 - 1), num_prompts=st.integers(0, 6))
def test_prompts_are_distinct_worded_and_in_the_order_of_their_tasks(seed, num_prompts):
    prompts = generate(seed, num_prompts)
    assert [prompt.index for prompt in prompts] == list(range(len(prompts)))
    assert len(set(encode_prompts(prompts)[1].splitlines())) == len(prompts)
    tags = [prompt.tag for prompt in prompts]
    assert tags == sorted(tags, key=TAGS.index)
    assert tags.count("single_object") == 80
    assert all(tags.count(tag) <= num_prompts for tag in TAGS[1:])
    assert all(prompt.text == caption(prompt.tag or "", prompt.include) for prompt in prompts)
    assert generate(seed, num_prompts) == prompts


@given(seed=st.integers(0, 2**32))
def test_a_person_is_never_coloured_and_two_colours_differ(seed):
    for prompt in generate(seed, 20, NAMES):
        colors = [clause.color for clause in prompt.include if clause.color]
        assert len(set(colors)) == len(colors)
        assert all(clause.class_name != "person" for clause in prompt.include if clause.color)


def test_counting_forbids_one_more_than_it_asks_for():
    counting = [prompt for prompt in generate(7, 30) if prompt.tag == "counting"]
    assert {prompt.include[0].count for prompt in counting} == {2, 3, 4}
    for prompt in counting:
        assert prompt.exclude[0].class_name == prompt.include[0].class_name
        assert prompt.exclude[0].count == prompt.include[0].count + 1


def test_seeds_differ():
    assert generate(1, 3) != generate(2, 3)


@pytest.mark.parametrize("names", [("dog", "cat", "cow"), ("person", "dog", "dog"), ("person", "dog")])
def test_names_that_cannot_be_drawn_from_are_refused(names):
    with pytest.raises(ValueError, match="names must be"):
        generate(0, 1, names)
    with pytest.raises(ValueError, match="num_prompts must be"):
        generate(0, -1, OBJECT_NAMES)
