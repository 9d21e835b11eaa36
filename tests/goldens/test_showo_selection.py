"""The published ORM and PARM loops choose as recorded, with as many questions, through the strategies themselves."""

from collections import Counter
from typing import Any

import pytest

from genloop.records import Choice, Prompt
from genloop.registry import lookup
from genloop.search import STRATEGIES
from tests.goldens.roots import golden_name, golden_paths
from tests.goldens.scripted_search import ScriptedJudge, ScriptedSampler
from tests.goldens.showo_sets import read_json

SCENARIOS = [
    pytest.param(scenario, id=f"{golden_name(path)}-{number}")
    for path in golden_paths("showo/**/selection.json")
    for number, scenario in enumerate(read_json(path)["scenarios"])
]


def choose(scenario: dict[str, Any], name: str, **options: Any) -> Choice:
    candidates = scenario["candidates"]
    strategy = lookup(STRATEGIES, name, "strategy")
    sampler, judge = ScriptedSampler(scenario["steps"]), ScriptedJudge(candidates)
    (choice,) = strategy(sampler, judge, len(candidates), strategy.Options(**options)).search([(Prompt(0, ""), 0)], 0)
    return choice


def questions(choice: Choice) -> Counter[str]:
    return Counter(seen.question for candidate in choice.candidates for seen in candidate.trace)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_parm_as_released(scenario: dict[str, Any]) -> None:
    choice = choose(scenario, "parm", mode="released")
    assert choice.chosen == scenario["parm_choice"]
    asked = questions(choice)
    clear = [candidate for candidate in scenario["candidates"] if candidate["clear_step"] >= 0]
    assert asked["clarity"] == scenario["parm_judge_calls"]
    assert asked["potential"] == len(clear)
    assert asked["outcome"] == scenario["parm_orm_calls"]
    assert choice.cost.judge_calls == asked.total()
    assert choice.cost.generator_steps == scenario["steps"] * len(scenario["candidates"])
    assert all(candidate.cut_at is None for candidate in choice.candidates)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_best_of_n_as_released(scenario: dict[str, Any]) -> None:
    choice = choose(scenario, "best_of_n")
    assert choice.chosen == scenario["orm_choice"]
    assert questions(choice) == {"outcome": len(scenario["candidates"])}
