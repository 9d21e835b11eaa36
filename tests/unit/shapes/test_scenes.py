"""Scenes show what their prompt names; drawings are what the grid of patches needs."""

from collections import Counter

import numpy as np
import pytest

from genloop.records import COLORS, RELATIONS, TAGS, Clause, Prompt
from genloop.shapes.prompts import pool
from genloop.shapes.render import BACKGROUND, SIZE, TEMPLATES, render
from genloop.shapes.scenes import GRID, SHAPES, SPAN, relation_of, scene_for


@pytest.mark.parametrize("tag", TAGS)
def test_a_scene_holds_exactly_the_named_objects(tag):
    rng = np.random.default_rng(0)
    for prompt in pool("train", tag)[:100]:
        scene = scene_for(prompt, rng)
        named = Counter({clause.class_name: clause.count for clause in prompt.include})
        assert Counter(thing.shape for thing in scene) == named
        for clause in prompt.include:
            colors = {thing.color for thing in scene if thing.shape == clause.class_name}
            assert clause.color is None or colors == {clause.color}


def test_objects_stay_on_the_grid_and_share_no_cell():
    rng = np.random.default_rng(1)
    crowd = Prompt(0, "four stars", "counting", (Clause("star", 4),))
    for _ in range(300):
        cells = [
            (thing.row + i, thing.column + j)
            for thing in scene_for(crowd, rng)
            for i in range(SPAN)
            for j in range(SPAN)
        ]
        assert len(set(cells)) == 4 * SPAN * SPAN
        assert all(0 <= row < GRID and 0 <= column < GRID for row, column in cells)


@pytest.mark.parametrize("relation", RELATIONS)
def test_positions_place_the_subject_as_the_sentence_says(relation):
    rng = np.random.default_rng(2)
    prompt = Prompt(0, "", "position", (Clause("star", 1), Clause("ring", 1, None, (relation, 0))))
    for _ in range(50):
        target, subject = scene_for(prompt, rng)
        assert (target.shape, subject.shape) == ("star", "ring")
        assert relation_of((subject.row, subject.column), (target.row, target.column)) == relation


def test_a_diagonal_is_no_clear_relation():
    assert relation_of((2, 2), (0, 0)) is None
    assert relation_of((0, 4), (0, 0)) == "right of"
    assert relation_of((0, 1), (4, 2)) == "above"


def test_colours_that_are_not_named_are_drawn_from_all_ten():
    rng = np.random.default_rng(3)
    prompt = pool("train", "single_object")[0]
    assert {scene_for(prompt, rng)[0].color for _ in range(300)} == set(COLORS)


def test_the_same_generator_draws_the_same_scene():
    prompt = pool("train", "color_attr")[5]
    drawn = [scene_for(prompt, np.random.default_rng([7, 11])) for _ in range(2)]
    assert drawn[0] == drawn[1]


def test_too_many_objects_are_refused():
    with pytest.raises(ValueError, match="1 to 4 objects"):
        scene_for(Prompt(0, "five stars", "counting", (Clause("star", 5),)), np.random.default_rng(0))


def test_an_empty_scene_is_flat_background():
    image = render([()])[0]
    assert image.shape == (SIZE, SIZE, 3)
    assert (image == BACKGROUND).all()


def test_every_drawing_fills_seven_rows_and_columns():
    assert TEMPLATES.shape == (len(SHAPES), 7, 7)
    assert TEMPLATES.any(axis=1).all()
    assert TEMPLATES.any(axis=2).all()
