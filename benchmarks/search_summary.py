"""What benchmarks/search.py found, as tables and a figure: score against cost, gains at equal cost, previews by step.

    python -m benchmarks.search_summary runs/search-test --figure benchmarks/search.svg

Costs are in operations (2 a multiply-add) of generator, image decoder and judge, counted from the sizes of the models,
relative to one image without search. Scores are means of the six tasks; intervals are 95 %, over sentences.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.search_gain import Gain, cost_of, gain_at, gain_at_equal_cost
from genloop.records import TAGS
from genloop.report.figures.canvas import At
from genloop.report.figures.frontier import Dot, Series, frontier_svg
from genloop.rundir import write_atomic
from genloop.stats.best_of_k import best_of_k, ceiling
from genloop.stats.frontier import Curve
from genloop.stats.intervals import Interval
from genloop.stats.judges.quality import JudgeAnswers, auc_within

Row = Mapping[str, Any]
SEED = 0
STEPS = 18  # of an image that is not stopped early
SHOWN = (1, 2, 3, 4, 6, 8, 12, 16, 20)  # k


def read(folder: Path) -> list[Row]:
    """All rows of finished chunks, in order."""
    rows = [row for chunk in sorted((folder / "chunks").glob("*.json")) for row in json.loads(chunk.read_text())]
    if not rows:
        raise FileNotFoundError(f"no finished chunk in {folder}; run benchmarks/search.py first")
    return rows


def curve_of(rows: Sequence[Row], label: str) -> Curve:
    """A strategy as a curve of one budget; a pool as that of best-of-k."""
    found = [row["choices"][label] for row in rows]
    unit = np.array([row["one_image"] for row in rows])
    if "p_yes" in found[0]:
        values = np.stack([best_of_k(one["p_yes"], one["correct"]) for one in found])
        k = np.arange(1, values.shape[1] + 1)
        costs = np.array([one["flops"] for one in found])[:, None] * (k / len(k)) / unit[:, None]
        costs[:, 0] = [one["steps"] / len(k) / STEPS for one in found]  # one candidate needs no judge
    else:
        values = np.array([[one["correct"]] for one in found])
        costs = np.array([[one["flops"]] for one in found]) / unit[:, None]
    return Curve(values, costs, [row["text"] for row in rows], [row["tag"] for row in rows])


def points(interval: Interval, digits: int = 1) -> str:
    """In points of 100."""
    return f"{100 * interval.estimate:.{digits}f} ({100 * interval.low:.{digits}f} to {100 * interval.high:.{digits}f})"


def pool_table(rows: Sequence[Row], labels: Sequence[str]) -> list[str]:
    """Best-of-k of every pool, and what a perfect judge would reach with the first."""
    lines = ["| k | " + " | ".join(f"{label}: score | cost" for label in labels) + " | perfect judge |"]
    lines += ["|---" * (2 * len(labels) + 2) + "|"]
    curves = [curve_of(rows, label) for label in labels]
    bands = [curve.band(SEED) for curve in curves]
    best = np.stack([ceiling(row["choices"][labels[0]]["correct"]) for row in rows])
    tags = np.array([row["tag"] for row in rows])
    top = np.mean([best[tags == tag].mean(axis=0) for tag in dict.fromkeys(tags.tolist())], axis=0)
    for k in [k for k in SHOWN if k <= best.shape[1]]:
        cells = [
            f"{points(band[k - 1])} | {curve.cost[k - 1]:.2f}" if k <= len(band) else "| "
            for curve, band in zip(curves, bands)
        ]
        lines.append(f"| {k} | " + " | ".join(cells) + f" | {100 * top[k - 1]:.1f} |")
    return lines


def strategy_table(rows: Sequence[Row], labels: Sequence[str], pool: Curve) -> tuple[list[str], dict[str, Gain]]:
    """Every strategy with its gain over best-of-k at equal cost, and what best-of-k would need for its score."""
    lines = ["| strategy | steps | judge calls | cost | score | minus best-of-k at equal cost | best-of-k needs |"]
    lines += ["|---|---|---|---|---|---|---|"]
    gains = {}
    for label in labels:
        curve = curve_of(rows, label)
        steps, calls = (task_mean(rows, label, key) for key in ("steps", "calls"))
        gain, needs = "outside the curve", cost_of(pool, float(curve.score[0]))
        if pool.cost[0] <= curve.cost[0] <= pool.cost[-1]:
            gains[label] = gain_at_equal_cost(curve, pool, SEED)
            gain = signed(gains[label].overall)
        need = "more than it has" if needs is None else f"{needs:.2f} ({curve.cost[0] / needs:.2f} x)"
        cells = [label, f"{steps:.1f}", f"{calls:.1f}", f"{curve.cost[0]:.2f}", points(curve.band(SEED)[0]), gain, need]
        lines.append(f"| {' | '.join(cells)} |")
    return lines, gains


def signed(interval: Interval) -> str:
    """A difference in points of 100."""
    return f"{100 * interval.estimate:+.1f} ({100 * interval.low:+.1f} to {100 * interval.high:+.1f})"


def task_mean(rows: Sequence[Row], label: str, key: str) -> float:
    """The mean of the tasks of a number of a strategy."""
    tags = np.array([row["tag"] for row in rows])
    numbers = np.array([row["choices"][label][key] for row in rows])
    return float(np.mean([numbers[tags == tag].mean() for tag in dict.fromkeys(tags.tolist())]))


def probe_table(rows: Sequence[Row]) -> list[str]:
    """AUC of potential within images' candidates, by step, order and judge."""
    if not rows or "probes" not in rows[0]:
        return []
    orders = list(rows[0]["probes"])
    judges = list(rows[0]["probes"][orders[0]]["scores"])
    steps = list(rows[0]["probes"][orders[0]]["scores"][judges[0]])
    lines = ["| order, judge | " + " | ".join(f"step {step}" for step in steps) + " |"]
    lines += ["|---" * (len(steps) + 1) + "|"]
    for order in orders:
        for judge in judges:
            cells = [within(rows, order, judge, step) for step in steps]
            lines.append(f"| {order}, {judge} | " + " | ".join(cells) + " |")
    return lines


def within(rows: Sequence[Row], order: str, judge: str, step: str) -> str:
    """AUC within the candidates of an image, with its interval."""
    groups = [(row["text"], number, row["probes"][order]) for number, row in enumerate(rows)]
    labels = np.array([value for _, _, probe in groups for value in probe["correct"]])
    scores = np.array([value for _, _, probe in groups for value in probe["scores"][judge][step]])
    texts = [text for text, _, probe in groups for _ in probe["correct"]]
    numbers = [number for _, number, probe in groups for _ in probe["correct"]]
    found, _ = auc_within(JudgeAnswers(labels, scores, texts, numbers), SEED)
    return (
        ""
        if found is None
        else f".{1000 * found.estimate:03.0f} (.{1000 * found.low:03.0f} to .{1000 * found.high:03.0f})"
    )


def figure(rows: Sequence[Row], pools: Sequence[str], labels: Sequence[str], families: Mapping[str, str]) -> str:
    """All of it in one picture."""
    lines = []
    for label in pools:
        curve = curve_of(rows, label)
        band = curve.band(SEED)
        lines.append(Series(label, [At(float(cost), score) for cost, score in zip(curve.cost, band)], label))
    dots = []
    for label in labels:
        curve = curve_of(rows, label)
        dots.append(Dot(short(label), At(float(curve.cost[0]), curve.band(SEED)[0]), families[label]))
    return frontier_svg(lines, dots, title="Score against cost, test prompts of the embedded world")


def short(label: str) -> str:
    """A strategy's label without what all of its family share."""
    return label.split(", accept")[0].split(", error")[0]


def paired(rows: Sequence[Row], one: str, other: str) -> tuple[str, str]:
    """The score of one strategy minus another's, image by image, and the ratio of their costs; POOL@K is best-of-k."""
    a, b = (at_budget(rows, label) for label in (one, other))
    first, second = (Curve(c.values, np.full_like(c.costs, 1.0), c.clusters, c.tags) for c in (a, b))
    return signed(gain_at(first, second, 1.0, SEED).overall), f"{a.cost[0] / b.cost[0]:.2f}"


def at_budget(rows: Sequence[Row], label: str) -> Curve:
    """A strategy, or a pool at one k."""
    name, _, k = label.partition("@")
    curve, place = curve_of(rows, name), int(k or 1) - 1
    return Curve(curve.values[:, [place]], curve.costs[:, [place]], curve.clusters, curve.tags)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pools", nargs="+", default=["orm"], help="the first is what strategies are compared with")
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--dots", nargs="+", help="strategies in the figure; default: all")
    parser.add_argument("--pairs", nargs="*", default=[], metavar="A::B", help="strategies to compare image by image")
    found = parser.parse_args()
    rows = read(found.folder)
    every = list(rows[0]["choices"])
    pools = [label for label in every if "p_yes" in rows[0]["choices"][label]]
    labels = [label for label in every if label not in pools]
    prompts, sentences = len({row["prompt"] for row in rows}), len({row["text"] for row in rows})
    print(f"{len(rows)} images of {prompts} prompts ({sentences} sentences); {', '.join(TAGS)}\n")
    print("\n".join(pool_table(rows, pools)), end="\n\n")
    print("\n".join(strategy_table(rows, labels, curve_of(rows, found.pools[0]))[0]), end="\n\n")
    print("\n".join(probe_table(rows)), end="\n\n")
    for one, other in (pair.split("::") for pair in found.pairs):
        gain, ratio = paired(rows, one, other)
        print(f"{one} minus {other}: {gain}, at {ratio} x its cost")
    if found.figure:
        families = {label: label.split()[0].rstrip(",") for label in labels}
        svg = figure(rows, found.pools, found.dots or labels, families)
        write_atomic(found.figure, svg.encode())


if __name__ == "__main__":
    main()
