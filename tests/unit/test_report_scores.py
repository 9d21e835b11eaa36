"""The numbers of the report: those of evaluate, and paired differences that claim no more than they may."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from geneval.summary import summarize
from genloop.config import read_yaml
from genloop.ledger import Counts, read_rows
from genloop.metrics.statistics import holm
from genloop.metrics.statistics_rates import Kind
from genloop.records import TAGS
from genloop.report.runs import JudgedImage, Run, read_runs
from genloop.report.scores import compare, score
from tests.unit.report_runs import Sketch, write_runs


@pytest.mark.parametrize("intervals", ["bootstrap", "wilson"])
def test_the_scores_are_those_that_evaluate_prints(tmp_path: Path, intervals: Kind) -> None:
    sizes = {"single_object": 7, "colors": 50}
    sketch = Sketch(samples=2, tags=[tag for tag, size in sizes.items() for _ in range(size)], prompts_per_task=1)
    run = write_runs(tmp_path, "a", sketch)
    config = read_yaml(run / "config.yaml") | {"intervals": intervals}
    (run / "config.yaml").write_text(json.dumps(config))
    summary = summarize(list(read_rows(run)), intervals=intervals)
    assert [task.accuracy.method for task in summary.tasks] == ["wilson", intervals]
    scores = score(read_runs([run])[0])
    assert [(s.task, s.accuracy, s.correct, s.images, s.prompts) for s in scores[:-1]] == [
        (t.tag, t.accuracy, t.num_correct, t.num_images, t.num_prompts) for t in summary.tasks
    ]
    assert scores[-1].accuracy == summary.overall


def test_a_run_does_not_differ_from_itself(tmp_path: Path) -> None:
    run = write_runs(tmp_path, "a", Sketch(prompts_per_task=10))
    differences = compare(*read_runs([run, run])).differences
    assert {row.result for row in differences} == {"same"}
    assert all(row.points.estimate == 0 and row.points.low < 0 < row.points.high for row in differences)
    assert all(row.p == 1 and row.better == row.worse == 0 for row in differences)


def test_one_prompt_proves_nothing(tmp_path: Path) -> None:
    one = Sketch(prompts_per_task=1, tags=("colors",))
    runs = [write_runs(tmp_path, f"a{share}", replace(one, accuracy=share)) for share in (0, 1)]
    task, overall = compare(*read_runs(runs)).differences
    assert task.points == overall.points
    assert (overall.points.estimate, overall.p, overall.result) == (1, 1, "same")


def coin(number: int, seed: int) -> Run:
    """A run whose every verdict is a fair coin: 15 prompts a task."""
    heads = np.random.default_rng(seed).random((len(TAGS), 15)) < 0.5
    images = [
        JudgedImage(15 * t + i, 0, f"{tag} {i}", tag, "{}", Path("0.png"), bool(heads[t, i]), "", None)
        for t, tag in enumerate(TAGS)
        for i in range(15)
    ]
    return Run(number, f"coin {seed}", Path("runs"), tuple(images), Counts(1, 1, 0, 0), None)


def test_two_samples_of_one_coin_are_rarely_called_different() -> None:
    pairs = [(coin(0, 2 * seed), coin(1, 2 * seed + 1)) for seed in range(40)]
    claims = [any(row.significant for row in compare(*pair).differences[:-1]) for pair in pairs]
    assert sum(claims) <= 5  # 40 families at a family-wise 5 %: two expected


def test_a_large_gain_is_called_better_and_a_large_loss_worse(tmp_path: Path) -> None:
    low = write_runs(tmp_path, "low", Sketch(prompts_per_task=20, accuracy=0.05, seed=1))
    high = write_runs(tmp_path, "high", Sketch(prompts_per_task=20, accuracy=0.95, seed=2))
    gain, loss = compare(*read_runs([low, high])), compare(*read_runs([high, low]))
    assert {row.result for row in gain.differences} == {"better"}
    assert {row.result for row in loss.differences} == {"worse"}
    assert [row.points.estimate for row in gain.differences] == pytest.approx(
        [-row.points.estimate for row in loss.differences]
    )


def test_the_difference_is_that_of_the_scores(tmp_path: Path) -> None:
    runs = read_runs([write_runs(tmp_path, name, Sketch(samples=2, seed=i)) for i, name in enumerate("ab")])
    before, after = (score(run) for run in runs)
    differences = compare(*runs).differences
    assert [row.task for row in differences] == [s.task for s in before]
    assert [row.points.estimate for row in differences] == pytest.approx(
        [b.accuracy.interval.estimate - a.accuracy.interval.estimate for a, b in zip(before, after)]
    )


def test_runs_with_other_numbers_of_samples_are_compared_by_prompt(tmp_path: Path) -> None:
    runs = [write_runs(tmp_path, "one", Sketch()), write_runs(tmp_path, "four", Sketch(samples=4))]
    assert compare(*read_runs(runs)).refusal == ""


def test_holm_multiplies_by_what_is_left_and_never_falls() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []
