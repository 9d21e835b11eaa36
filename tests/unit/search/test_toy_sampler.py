"""Strategies know no Show-o: every one of them also searches a sampler of continuous latents."""

import math
from typing import Any

import pytest
import torch

from genloop.config import parse_options
from genloop.records import Choice, Prompt
from genloop.registry import lookup
from genloop.search import STRATEGIES
from tests.worlds.tiny_search import PAIRS, SEARCHES, Opinions, content
from tests.worlds.toy_sampler import ToySampler


def search(name: str, pairs: list[tuple[Prompt, int]], slots: int = 64) -> list[Choice]:
    strategy, n, options = SEARCHES[name]
    cls: Any = lookup(STRATEGIES, strategy, "strategy")
    judge = Opinions() if cls.questions(parse_options(cls.Options, options)) else None
    return list(cls(ToySampler(slots=slots), judge, n, parse_options(cls.Options, options)).search(pairs, 5))


@pytest.mark.parametrize("name", SEARCHES)
def test_a_choice_does_not_depend_on_slots_or_neighbours(name: str) -> None:
    wide = [content(choice) for choice in search(name, PAIRS)]
    narrow = [content(choice) for choice in search(name, PAIRS, slots=3)]
    alone = [content(choice) for pair in PAIRS[:3] for choice in search(name, [pair])]
    assert wide == narrow and wide[:3] == alone


@pytest.mark.parametrize("name", SEARCHES)
def test_the_chosen_path_is_finished_and_ends_in_an_image(name: str) -> None:
    for choice in search(name, PAIRS):
        best = choice.candidates[choice.chosen]
        assert best.cut_at is None and best.num_steps >= ToySampler().num_steps
        pixels = ToySampler().decode(torch.from_numpy(best.content)[None])
        assert pixels.shape == (1, 3, 8, 8) and pixels.isfinite().all()
        assert choice.cost.generator_steps > 0 and math.isfinite(choice.cost.flops)


def test_a_reopened_region_is_drawn_again_and_the_rest_stays() -> None:
    found = 0
    for choice in search("parm++ random", PAIRS):
        for child in (one for one in choice.candidates if one.parent is not None):
            changed = child.content != choice.candidates[child.parent or 0].content
            assert 0 < changed.sum() <= round(0.3 * changed.size)
            found += 1
    assert found
