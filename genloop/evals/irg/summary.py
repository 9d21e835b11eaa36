"""The numbers of the benchmark, each with n and an interval: scenes are drawn with replacement, critics are paired.

Rows of one scene are not independent, so clusters are scenes. Means come from the clustered bootstrap, shares have
Wilson's interval at the effective sample size. Macro-F1 is the mean of F1 over the issues that occur in the truth; it
is resampled as a whole. C = scenes, K = issues, R = resamples.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from genloop.stats.clusters import numbered
from genloop.stats.gains import gain
from genloop.stats.intervals import Interval, as_numbers, clustered_wilson
from genloop.stats.resampling import bootstrap, drawn_mean

Rows = Sequence[Mapping[str, Any]]
Numbers = dict[str, dict[str, Any]]  # measure -> {"n", "estimate", "low", "high"}
TRUTHS = {"faults": "injected", "rules": "oracle"}  # what a diagnosis is compared with -> key of the rows


def summarize(rows: Rows, base: str, target: float, seed: int) -> dict[str, Any]:
    """All rows -> {"critics": {name: numbers}, "over base": {name: paired differences}}; `base`: name of a critic."""
    by_critic: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_critic.setdefault(row["critic"], []).append(row)
    others = [name for name in by_critic if name != base]
    return {
        "critics": {name: _numbers(own, target, seed) for name, own in by_critic.items()},
        "base": base,
        "over base": {name: _paired(by_critic[base], by_critic[name], seed) for name in others},
        "by severity": {name: _by_bin(own) for name, own in by_critic.items()},
        "by issue": {name: _by_issue(own) for name, own in by_critic.items()},
    }


def _numbers(rows: Rows, target: float, seed: int) -> Numbers:
    scenes = [row["scene"] for row in rows]
    found: Numbers = {}
    for name, key in TRUTHS.items():
        found[f"macro-F1 against {name}"] = as_numbers(_macro_f1([rows], key, seed)[0], len(rows))
        found[f"exact set against {name}"] = _share([_is_exact(row, key) for row in rows], scenes)
    errors = [(abs(row["said"][i] - row["oracle"][i]), row["scene"]) for row in rows for i in _both(row)]
    found["severity error"] = _mean([e for e, _ in errors], [s for _, s in errors], seed)
    quotes = [(*row["quoted"], row["scene"]) for row in rows]
    values = [float(n < right) for right, total, _ in quotes for n in range(total)]
    found["faithful numbers"] = _share(values, [scene for _, total, scene in quotes for _ in range(total)])
    found["valid format"] = _share([float(row["valid"]) for row in rows], scenes)
    clean = [row for row in rows if row["valid"] and not row["injected"] and not row["oracle"]]
    found["false alarms on clean images"] = _share([float(bool(r["said"])) for r in clean], [r["scene"] for r in clean])
    acted = [(one, row["scene"]) for row in rows for one in row["rounds"]]
    found["executed actions"] = _share([float(one["executed"]) for one, _ in acted], [s for _, s in acted])
    done = [(float(one["gained"]), scene) for one, scene in acted if one["executed"]]
    found["actions that gain"] = _share([g for g, _ in done], [s for _, s in done])
    below = [row for row in rows if row["composite"][0] < target]
    reached = [float(row["composite"][-1] >= target) for row in below]
    found["target reached"] = _share(reached, [row["scene"] for row in below])
    needed = [(_rounds_to(row["composite"], target), row["scene"]) for row in below if row["composite"][-1] >= target]
    found["rounds to target"] = _mean([float(n) for n, _ in needed], [s for _, s in needed], seed)
    for number in range(len(rows[0]["composite"])):
        name = "composite before" if number == 0 else f"composite after round {number}"
        found[name] = _mean([row["composite"][number] for row in rows], scenes, seed)
    return found


def _paired(base: Rows, other: Rows, seed: int) -> Numbers:
    """Other minus base, on the traces that both have."""
    known = {row["id"]: row for row in base}
    pairs = [(known[row["id"]], row) for row in other if row["id"] in known]
    first, second = [one for one, _ in pairs], [one for _, one in pairs]
    scenes, found = [row["scene"] for row in first], {}
    for name, key in TRUTHS.items():
        found[f"macro-F1 against {name}"] = as_numbers(_macro_f1([second, first], key, seed)[-1], len(pairs))
        before, after = ([_is_exact(row, key) for row in rows] for rows in (first, second))
        found[f"exact set against {name}"] = _gained(before, after, scenes, seed)
    before, after = ([row["composite"][-1] for row in rows] for rows in (first, second))
    found["composite at the end"] = _gained(before, after, scenes, seed)
    return found


def _macro_f1(arms: Sequence[Rows], key: str, seed: int) -> list[Interval]:
    """Of each arm on the same traces, and, of two, the first minus the second."""
    index, _ = numbered([row["scene"] for row in arms[0]])
    issues = sorted({issue for row in arms[0] for issue in row[key]})
    counts = [_confusion(rows, key, issues, index) for rows in arms]  # each (C, 3, K)

    def statistic(weights: np.ndarray) -> np.ndarray:
        f1 = []
        for one in counts:
            hit, false, missed = np.moveaxis(np.tensordot(weights, one, (1, 0)), 1, 0)  # (R, K) each
            whole = 2 * hit + false + missed
            each = np.divide(2 * hit, whole, out=np.zeros_like(whole), where=whole > 0)
            there = (whole > 0).sum(axis=1)  # issues that a resample holds; without any it has no number
            f1.append(np.divide(each.sum(axis=1), there, out=np.full(len(there), np.nan), where=there > 0))
        return np.stack([*f1, f1[0] - f1[1]] if len(f1) == 2 else f1, axis=1)

    if not issues:
        return [Interval(float("nan"), float("nan"), float("nan"))] * (2 * len(arms) - 1)
    return bootstrap(statistic, np.zeros(int(index.max()) + 1, dtype=int), seed)


def _confusion(rows: Rows, key: str, issues: Sequence[str], index: np.ndarray) -> np.ndarray:
    """(C, 3, K): right, false and missed namings of each issue, by scene"""
    found = np.zeros((int(index.max()) + 1, 3, len(issues)))
    for scene, row in zip(index, rows, strict=True):
        for place, issue in enumerate(issues):
            is_said, is_there = issue in row["said"], issue in row[key]
            found[scene, :, place] += (is_said and is_there, is_said and not is_there, is_there and not is_said)
    return found


def _by_bin(rows: Rows) -> Numbers:
    """How often every injected fault is named, by the bin of the worst one."""
    bins = sorted({row["bin"] for row in rows if row["bin"] is not None})
    found = {}
    for number in bins:
        own = [row for row in rows if row["bin"] == number]
        named = [float(set(row["injected"]) <= set(row["said"])) for row in own]
        found[("mild", "moderate", "severe")[min(2, number)]] = _share(named, [row["scene"] for row in own])
    return found


def _by_issue(rows: Rows) -> Numbers:
    """How often a fault is named where it was injected."""
    found = {}
    for issue in sorted({issue for row in rows for issue in row["injected"]}):
        own = [row for row in rows if issue in row["injected"]]
        found[issue] = _share([float(issue in row["said"]) for row in own], [row["scene"] for row in own])
    return found


def _is_exact(row: Mapping[str, Any], key: str) -> float:
    """1 where the diagnosis is the truth; an answer that could not be read is wrong, also about a clean image."""
    return float(row["valid"] and set(row["said"]) == set(row[key]))


def _both(row: Mapping[str, Any]) -> list[str]:
    return [issue for issue in row["said"] if issue in row["oracle"]]


def _rounds_to(composites: Sequence[float], target: float) -> int:
    return next(number for number, value in enumerate(composites) if value >= target)


def _share(values: Sequence[float], clusters: Sequence[str]) -> dict[str, Any]:
    return as_numbers(clustered_wilson(values, clusters) if values else None, len(values))


def _mean(values: Sequence[float], clusters: Sequence[str], seed: int) -> dict[str, Any]:
    return as_numbers(drawn_mean(values, clusters, seed) if values else None, len(values))


def _gained(before: Sequence[float], after: Sequence[float], scenes: Sequence[str], seed: int) -> dict[str, Any]:
    found = gain(before, after, scenes, seed)
    return as_numbers(found.difference, len(before)) | {"p": found.p}
