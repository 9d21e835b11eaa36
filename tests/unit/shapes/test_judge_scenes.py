"""Contrasts of drawn scenes: one slot apart, labelled by the oracle, nothing held out is ever named."""

from collections import Counter

import numpy as np
import pytest

from geneval.judge import ShapesOracle
from geneval.labels import Labeller, step_labels
from geneval.reasons import in_words
from genloop.data.judge.examples import split_of
from genloop.data.prompts import caption
from genloop.records import COLORS, TAGS, Clause, Prompt, Verdict, color_names
from genloop.shapes.damage import MOST_CELLS, spoil
from genloop.shapes.detector import ShapesDetector
from genloop.shapes.judge_scenes import changed, contrast, seen_cells
from genloop.shapes.prompts import names_held_out, pool
from genloop.shapes.render import render
from genloop.shapes.scenes import CELL, SHAPES, SPAN, Thing


def side(text: str) -> str:
    return split_of(text, 0, 0.3)


CONTRASTS = [contrast(0, index, side) for index in range(400)]


def labeller() -> Labeller:
    return Labeller(ShapesOracle().evaluator)


def test_a_contrast_depends_on_its_number_alone():
    assert CONTRASTS[7] == contrast(0, 7, side) != contrast(1, 7, side)


def test_sentences_are_those_of_training_on_one_side_of_the_split():
    trained = {prompt.text for tag in TAGS for prompt in pool("train", tag)}
    for found in CONTRASTS:
        assert {prompt.text for prompt in found.prompts} <= trained
        assert not any(names_held_out(prompt.include) for prompt in found.prompts)
        assert len({side(prompt.text) for prompt in found.prompts}) == 1


def test_scenes_show_held_out_combinations():
    from genloop.shapes.prompts import held_out_colors

    things = {(thing.shape, thing.color) for found in CONTRASTS for scene in found.scenes for thing in scene}
    assert held_out_colors() <= things


def test_the_oracle_says_that_a_scene_shows_its_sentence_and_rarely_the_other():
    judge = labeller()
    wrong = total = 0
    for found in CONTRASTS:
        images = render(found.scenes)
        for number, prompt in enumerate(found.prompts):
            verdicts = judge.verdicts([prompt] * 2, images)
            assert verdicts[number].correct, (prompt.text, found.scenes[number], verdicts[number].reason)
            wrong += not verdicts[1 - number].correct
            total += 1
    assert wrong / total > 0.9  # an object left out leaves the shorter sentence true


def test_every_task_and_every_kind_of_change_comes_up():
    tags = Counter(found.prompts[0].tag for found in CONTRASTS)
    assert set(tags) == set(TAGS) and min(tags.values()) > 400 / 6 / 2
    assert 0.3 < np.mean([len(found.prompts) == 2 for found in CONTRASTS]) < 0.9


def test_a_changed_sentence_differs_in_one_slot():
    texts = {p.text for p in changed(pool("train", "position")[0])}
    target, subject = pool("train", "position")[0].include
    swapped = caption("position", (Clause(subject.class_name, 1), Clause(target.class_name, 1, None, subject.position)))
    assert swapped in texts and pool("train", "position")[0].text not in texts
    two = Prompt(0, "", "counting", (Clause("star", 2),), (Clause("star", 3),))
    found = list(changed(two))
    assert {p.include[0].count for p in found} == {2, 3, 4}
    assert all(p.exclude[0].count == p.include[0].count + 1 for p in found)
    assert len({p.text for p in found}) == len(found) == 11


def test_cells_that_are_seen_are_those_that_were_drawn():
    detector = ShapesDetector()
    for found in CONTRASTS[:100]:
        for scene, image in zip(found.scenes, render(found.scenes)):
            detections = detector.detect([image])[0]
            grid = seen_cells(image, detections, color_names(detector.scores([(image, detections)])[0]))
            expected = np.zeros_like(grid)
            for thing in scene:
                place = expected[thing.row : thing.row + SPAN, thing.column : thing.column + SPAN]
                place[:] = 1 + SHAPES.index(thing.shape), 1 + COLORS.index(thing.color)
            assert (grid == expected).all()


def test_what_is_neither_background_nor_an_object_is_something_else():
    image = render([(Thing("star", "blue", 1, 3),)])[0]
    image[0, 0] = 0
    image[20:, 20:] = (40, 80, 220)  # a square of one cell
    detections = ShapesDetector().detect([image])[0]
    grid = seen_cells(image, detections, ["blue"])
    assert (grid[0, 0] == 11).all() and (grid[5, 5] == 11).all() and (grid[0, 1] == 0).all()
    assert (grid[1:3, 3:5] == [1 + SHAPES.index("star"), 1 + COLORS.index("blue")]).all()


@pytest.mark.parametrize(
    ("prompt", "scene", "words"),
    [
        (Prompt(0, "", "single_object", (Clause("star", 1),)), (Thing("ring", "red", 0, 0),), "no star"),
        (Prompt(0, "", "single_object", (Clause("star", 1),)), (Thing("star", "red", 0, 0),), ""),
        (
            Prompt(0, "", "counting", (Clause("star", 2),), (Clause("star", 3),)),
            tuple(Thing("star", "red", 0, column) for column in (0, 2, 4)),
            "three stars not two",
        ),
        (Prompt(0, "", "counting", (Clause("cross", 3),)), (Thing("cross", "red", 0, 0),), "one cross not three"),
        (Prompt(0, "", "counting", (Clause("cross", 3),)), (), "no crosses"),
        (Prompt(0, "", "colors", (Clause("star", 1, "red"),)), (Thing("star", "blue", 0, 0),), "no red star"),
        (
            Prompt(0, "", "position", (Clause("star", 1), Clause("ring", 1, None, ("left of", 0)))),
            (Thing("star", "blue", 0, 0), Thing("ring", "red", 0, 4)),
            "ring not left of star",
        ),
        (
            Prompt(0, "", "position", (Clause("star", 1), Clause("ring", 1, None, ("left of", 0)))),
            (Thing("ring", "red", 0, 4),),
            "no star",
        ),
        (Prompt(0, "", "two_object", (Clause("star", 1), Clause("ring", 1))), (), "no star and no ring"),
    ],
)
def test_reasons_are_plain_words(prompt, scene, words):
    verdict = labeller().verdicts([prompt], render([scene]))[0]
    assert in_words(prompt, verdict) == words


def test_many_are_many():
    prompt = Prompt(0, "", "counting", (Clause("star", 2),), (Clause("star", 3),))
    assert in_words(prompt, Verdict(False, "expected star<3, found 12")) == "many stars not two"


def test_equal_images_are_detected_once():
    class Counting(ShapesDetector):
        seen = 0

        def detect(self, images):
            Counting.seen += len(images)
            return super().detect(images)

    images = render([(), (Thing("star", "red", 0, 0),), ()])
    star, ring = Prompt(0, "a star", "x", (Clause("star", 1),)), Prompt(0, "a ring", "x", (Clause("ring", 1),))
    judge = Labeller(ShapesOracle().evaluator._replace(detector=Counting()))
    verdicts = judge.verdicts([star, star, star, ring, star], images[[0, 1, 2, 1, 1]])
    assert [verdict.correct for verdict in verdicts] == [False, True, False, False, True]
    assert Counting.seen == 3


def test_labels_of_a_step_count_how_its_continuations_end():
    assert step_labels(True, [True]) == {"clarity": 1.0, "potential": 1.0}
    assert step_labels(False, [True]) == {"clarity": 0.0, "potential": 1.0}
    assert step_labels(False, [True, False, False, False]) == {"clarity": 0.75, "potential": 0.25}
    assert step_labels(False, [True, False, False, False], 0.7) == {"clarity": 1.0, "potential": 0.25}
    assert step_labels(True, [True, False, False, False], 0.7) == {"clarity": 0.0, "potential": 0.25}


def test_spoilt_scenes_differ_in_a_few_cells_and_are_often_wrong():
    judged, differ = labeller(), []
    verdicts = []
    for number, found in enumerate(CONTRASTS[:200]):
        (image, _), scene = render(found.scenes), found.scenes[0]
        spoilt = spoil(image, scene, np.random.default_rng(number))
        assert (spoilt == spoil(image, scene, np.random.default_rng(number))).all() and spoilt.dtype == np.uint8
        cells = (spoilt != image).any(axis=2).reshape(6, CELL, 6, CELL).any(axis=(1, 3))
        differ.append(cells.sum())
        verdicts.append(judged.verdicts([found.prompts[0]], spoilt[None])[0].correct)
    assert max(differ) == MOST_CELLS and np.mean(differ) > 1
    assert 0.2 < np.mean(verdicts) < 0.8
