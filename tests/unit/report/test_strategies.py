"""Evaluated runs as points of the frontier: their scores, their costs, the clusters of scaling_curve."""

import json
from pathlib import Path

import numpy as np
import pytest

from genloop.report.page.scores import score
from genloop.report.page.strategies import dot, strategy
from genloop.report.runs import read_runs
from genloop.stats.frontier import gain_at_equal_cost
from genloop.stats.scaling import CEILING, scale
from tests.worlds.report_runs import Sketch, write_runs

UNIT = 9e6


def pool_rows(run: Path) -> list[dict]:
    """Rows of scaling_curve over the prompts of an evaluate run: four candidates each, two of them right."""
    rows = [json.loads(line) for path in sorted((run / "rows").iterdir()) for line in path.read_text().splitlines()]
    facts = {"correct": [1, 0, 1, 0], "scores": {}, "cost": {"generator_steps": 9, "flops": UNIT, "judging": {}}}
    return [{**row, **facts, "metadata": dict(reversed(row["metadata"].items()))} for row in rows]


def test_a_run_is_compared_with_a_pool_over_the_same_prompts(tmp_path):
    folder = write_runs(tmp_path, "a", Sketch(num_candidates=4, searched=True, samples=2, accuracy=0.9))
    (run,) = read_runs([folder])
    curve = strategy(run, UNIT)
    assert curve.score[0] == pytest.approx(score(run)[-1].accuracy.interval.estimate)
    assert curve.cost[0] == pytest.approx(np.mean([image.record.cost.flops for image in run.images]) / UNIT)
    pool = scale(pool_rows(folder), 0)
    gain = gain_at_equal_cost(curve, pool.curves[CEILING], 0)
    assert gain.place == pytest.approx(curve.cost[0])
    assert gain.overall.estimate == pytest.approx(curve.score[0] - pool.curves[CEILING].score_at(curve.cost[0]))
    assert gain.overall.low <= gain.overall.estimate <= gain.overall.high


def test_a_run_is_a_dot_with_its_interval(tmp_path):
    (run,) = read_runs([write_runs(tmp_path, "a", Sketch(num_candidates=4, searched=True))])
    found = dot(strategy(run, UNIT), "k4", "parm", 0)
    assert (found.label, found.family, found.point.x) == ("k4", "parm", strategy(run, UNIT).cost[0])
    assert found.point.score.low < found.point.score.estimate < found.point.score.high


def test_a_run_that_does_not_tell_its_costs_is_refused(tmp_path):
    (run,) = read_runs([write_runs(tmp_path, "a", Sketch())])
    with pytest.raises(ValueError, match="24 images do not tell their operations"):
        strategy(run, UNIT)
