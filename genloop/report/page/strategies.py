"""Evaluated runs as points of the frontier: what each image scored and cost, ready to be compared at equal cost.

pool = scale(list(read_rows(curve_folder)), seed=0)  # of scaling_curve
run, = read_runs([verdicts_folder])  # of evaluate
gain = gain_at_equal_cost(strategy(run, pool.one_image["flops"]), pool.curves["my_judge"], seed=0)
"""

import numpy as np

from genloop.report.figures.canvas import At
from genloop.report.figures.frontier import Dot
from genloop.report.runs import ReportedRun
from genloop.stats.frontier import Curve


def strategy(run: ReportedRun, unit: float) -> Curve:
    """A run as a curve of one budget, costs in images of `unit` operations; clusters are those of scaling_curve.

    ValueError when an image's row does not say what it cost.
    """
    costs = [0.0 if image.record is None else image.record.cost.flops for image in run.images]
    if not all(costs):
        raise ValueError(f"{run.folder}: {costs.count(0.0)} images do not tell their operations; generate them again")
    return Curve(
        values=np.array([[float(image.correct)] for image in run.images]),
        costs=np.array(costs)[:, None] / unit,
        clusters=[image.key for image in run.images],
        tags=[image.tag for image in run.images],
    )


def dot(curve: Curve, label: str, family: str, seed: int) -> Dot:
    """A strategy as a dot of the frontier figure, with its 95 % interval."""
    return Dot(label, At(float(curve.cost[0]), curve.band(seed)[0]), family)
