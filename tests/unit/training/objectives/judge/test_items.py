"""The items of a step follow from the seed and the step, and are what the settings ask for."""

import pickle
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from genloop.data.judge.dataset import read_judge_set
from genloop.shapes.judge_scenes import SHAPE_NAMES
from genloop.training.objectives.judge.items import names_in
from genloop.training.objectives.judge.settings import BatchSettings
from tests.worlds.judge_data import SCENES, objective, paths


@pytest.fixture(scope="module")
def scenes():
    return read_judge_set(SCENES / "train")


@pytest.fixture(scope="module")
def made_up(tmp_path_factory):
    return paths(tmp_path_factory.mktemp("paths"))


@pytest.fixture
def both(tmp_path, made_up, scenes):
    return objective(tmp_path, made_up, scenes)


def test_a_batch_is_a_function_of_seed_and_step(tmp_path, both, made_up, scenes):
    again, other = (objective(tmp_path / str(seed), made_up, scenes, seed=seed) for seed in (0, 1))
    assert both.plan(3) == again.plan(3)
    assert both.plan(3).items not in (both.plan(4).items, other.plan(3).items)


def test_items_are_small(both):
    assert len(pickle.dumps(both.plan(1))) < 2000


def test_a_group_is_paths_of_one_prompt_at_the_same_steps(both):
    groups = [item for step in range(1, 30) for item in both.plan(step).items if item.kind == "group"]
    data = both.plans.data.sets[0]
    tags = Counter()
    for item in groups:
        members = [data.examples[example] for example in item.examples]
        assert len({member.prompt.text for member in members}) == 1
        by_path = Counter((m.sample, m.candidate) for m in members)
        assert sorted(by_path.values()) == [3, 3, 3]
        assert len({frozenset(m.step for m in members if m.candidate == c) for _, c in by_path}) == 1
        tags[members[0].prompt.tag] += 1
    assert set(tags) == {"single_object", "colors", "position"} and min(tags.values()) > len(groups) / 3 / 2


def test_a_contrast_asks_every_sentence_about_both_scenes(both):
    for item in both.plan(1).items[3:]:
        assert item.kind == "contrast" and len(both.plans.asked(item)) == 2
        assert len(item.examples) in (2, 4)


def test_pairs_rank_the_better_of_two_images_at_one_step(both):
    data, plan = both.plans.data.sets[0], both.plan(1)
    pairs = 0
    for item in plan.items[:3]:
        for (better, worse, question), gap in zip(*both.plans.pairs(item)):
            assert data.labels[better, question] - data.labels[worse, question] == gap > 0
            assert data.examples[better].step == data.examples[worse].step
            pairs += 1
    _, totals = plan.shared
    assert pairs == totals["pairs"] > 0


def test_data_sets_are_drawn_as_often_as_their_weights_say(tmp_path, made_up):
    mix = BatchSettings(groups=8, paths=2, previews=0, scenes=0)
    here = objective(tmp_path, made_up, made_up, mix=mix, set_weights=(3.0, 1.0))
    sources = Counter(item.source for step in range(60) for item in here.plan(step).items)
    assert 0.68 < sources[0] / 480 < 0.82


def test_a_batch_that_the_data_cannot_fill_is_refused(tmp_path, made_up, scenes):
    with pytest.raises(ValueError, match=r"batch\.scenes: 4 "):
        objective(tmp_path, made_up)
    with pytest.raises(ValueError, match=r"batch\.groups: 3 "):
        objective(tmp_path, scenes)
    with pytest.raises(ValueError, match=r"batch\.conversations: 2 "):
        objective(tmp_path, scenes, mix=BatchSettings(groups=0, conversations=2))


def test_a_name_is_in_the_image_or_not_or_nobody_knows(scenes):
    image, cells = next(iter(scenes.cells.items()))
    shape, color = cells.reshape(-1, 2).max(axis=0).tolist()
    whole = names_in(scenes, image)
    assert whole[shape - 1] == 1 and whole[len(SHAPE_NAMES) + color - 1] == 1 and set(whole) == {0.0, 1.0}
    partly = cells.copy()
    partly[np.argwhere(cells[..., 0] == 0)[0][0], np.argwhere(cells[..., 0] == 0)[0][1]] = 255
    found = names_in(replace(scenes, cells={image: partly}), image)
    assert found[shape - 1] == 1 and not (found == 0).any() and np.isnan(found).any()
    assert names_in(replace(scenes, cells={}), image) is None
