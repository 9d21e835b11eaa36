"""The law of searching: what a strategy chooses for an image depends on the image, on nothing beside it.

Also: every strategy copes with judges that do not answer, and counts what it costs.
"""

from functools import lru_cache
from typing import Any

import numpy as np
import pytest

from genloop.config import parse_options
from genloop.registry import lookup
from genloop.search import STRATEGIES
from tests.worlds.tiny_search import PAIRS, SEARCHES, OnlyOutcomes, Opinions, build, content, sampler

JUDGES = {"sure": 0.0, "often silent": 0.5, "silent": 1.0}


def run(name: str, pairs: Any, slots: int = 64, unknown: float = 0.0) -> list[Any]:
    strategy, n, options = SEARCHES[name]
    searching = build(strategy, n, Opinions(unknown), slots, **options)
    return list(searching.search(pairs, 11))


@lru_cache
def reference(name: str, judge: str) -> list[dict[str, Any]]:
    return [content(choice) for choice in run(name, PAIRS, unknown=JUDGES[judge])]


def test_every_strategy_is_under_the_law() -> None:
    assert {strategy for strategy, _, _ in SEARCHES.values()} == set(STRATEGIES)


@pytest.mark.parametrize("slots", [1, 3])
@pytest.mark.parametrize("name", SEARCHES)
def test_slots_change_nothing(name: str, slots: int) -> None:
    assert [content(choice) for choice in run(name, PAIRS, slots)] == reference(name, "sure")


@pytest.mark.parametrize("judge", JUDGES)
@pytest.mark.parametrize("name", SEARCHES)
def test_neighbours_and_order_change_nothing(name: str, judge: str) -> None:
    unknown = JUDGES[judge]
    assert [content(choice) for choice in run(name, PAIRS[::-1], 4, unknown)][::-1] == reference(name, judge)
    for pair, expected in zip(PAIRS[2:6], reference(name, judge)[2:6]):
        assert content(run(name, [pair], unknown=unknown)[0]) == expected


@pytest.mark.parametrize("name", SEARCHES)
def test_candidate_zero_is_the_image_without_a_search(name: str) -> None:
    for choice, plain in zip(run(name, PAIRS), run("none", PAIRS)):
        first, image = choice.candidates[0], plain.candidates[0]
        known = first.history["revealed_at"] >= 0
        assert known.any()
        assert (first.content[known] == image.content[known]).all()
        assert (first.history["revealed_at"][known] == image.history["revealed_at"][known]).all()


@pytest.mark.parametrize("judge", JUDGES)
@pytest.mark.parametrize("name", SEARCHES)
def test_a_chosen_path_is_finished_and_never_unknown_beside_a_known_one(name: str, judge: str) -> None:
    for choice in run(name, PAIRS, unknown=JUDGES[judge]):
        best = choice.candidates[choice.chosen]
        assert best.cut_at is None and best.history["revealed_at"].min() >= 0
        assert [one.index for one in choice.candidates] == list(range(len(choice.candidates)))
        done = [one for one in choice.candidates if one.cut_at is None]
        if np.isnan(best.p_yes.get("outcome", 0.0)) and name != "prm path" and name != "parm released":
            assert all(np.isnan(one.p_yes.get("outcome", np.nan)) for one in done)
        if judge == "silent" and name != "none":
            assert choice.chosen == 0
            assert best.reason == "not judged: the judge gave no answer"


@pytest.mark.parametrize("name", SEARCHES)
def test_costs_are_the_steps_and_questions_of_the_traces(name: str) -> None:
    strategy, n, options = SEARCHES[name]
    for judge in (Opinions(),) if strategy == "refine" else (Opinions(), OnlyOutcomes()):
        walker = build(strategy, n, judge, **options)
        choices = list(walker.search(PAIRS, 11))
        steps = sum(walker.sampler.walked)
        children = sum(one.parent is not None for choice in choices for one in choice.candidates)
        passes = {"parm++ confidence": 1.5, "refine best": 1.5, "parm++ layout": 0.5}.get(name, 0.0)
        assert sum(choice.cost.generator_steps for choice in choices) == steps + passes * children
        seen = sum(len(one.trace) for choice in choices for one in choice.candidates)
        calls = sum(choice.cost.judge_calls for choice in choices)
        assert calls == seen if not name.startswith(("parm++", "refine")) else calls >= seen
        if isinstance(judge, Opinions):
            weights = {"compare": 2}
            shown = sum(rows * weights.get(question, 1) for question, rows in judge.shown)
            assert calls == shown


@pytest.mark.parametrize("name", [name for name in SEARCHES if name != "none"])
def test_strategies_without_a_judge_are_refused(name: str) -> None:
    strategy, n, options = SEARCHES[name]
    cls = lookup(STRATEGIES, strategy, "strategy")
    parsed = parse_options(cls.Options, options)
    asked = ", ".join(cls.questions(parsed))
    with pytest.raises(ValueError, match=f"asks {asked}: "):
        cls(sampler(), None, n, parsed)
    assert set(cls.questions(parsed)) <= {"outcome", "clarity", "potential", "reason", "refine"}
