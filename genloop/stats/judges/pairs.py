"""The numbers of judged pairs, each with n and a 95 % interval; pairs about one image are a cluster.

An arm is a judge asked in one way. Shares have Wilson's interval at the effective sample size; the macro accuracy is
the mean of those of the groups; means and differences are bootstrapped over clusters. A coin has an accuracy of 1/2,
so 2 accuracy - 1 is 0 for a coin and 1 for a judge that is always right.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from genloop.runs.judged import STRICT, WRITTEN, JudgedPair, by_arm
from genloop.stats.intervals import Interval, as_numbers, clustered_wilson, interval_of, mean_of
from genloop.stats.judges.quality import JudgeAnswers, calibration_error
from genloop.stats.paired import holm, weighted_sign_flip_test
from genloop.stats.resampling import cluster_bootstrap, paired_bootstrap

CONTROL = "longer answer"  # the arm that reads nothing
Rows = Sequence[JudgedPair]
Right = Callable[[JudgedPair], float]
Number = dict[str, Any]  # n, estimate, low, high


def arm_name(judge: str, reading: str) -> str:
    """As tables name it."""
    return f"{judge} / {reading}"


def summarize(rows: Rows, base: str, seed: int) -> dict[str, Any]:
    """All rows -> numbers by arm, four ways to read written verdicts, and paired differences to the arm `base`.

    The control arm always takes the longer answer.
    """
    arms = {arm_name(*arm): (own, _right(arm[1])) for arm, own in by_arm(rows).items()}
    found = {
        arm_name(judge, reading): _accuracies(own, _right(reading)) | _biases(own, reading, seed)
        for (judge, reading), own in by_arm(rows).items()
    }
    first = next(iter(by_arm(rows).values()))
    arms[CONTROL] = first, _longer
    found[CONTROL] = _accuracies(first, _longer)
    return {
        "pairs": len(first),
        "clusters": len({row.cluster for row in first}),
        "groups": {group: len(own) for group, own in _by_group(first).items()},
        "arms": found,
        "written": {judge: _parsers(own) for (judge, reading), own in by_arm(rows).items() if reading == WRITTEN},
        "base": base,
        "over base": _differences(arms, base, seed),
    }


def _right(reading: str) -> Right:
    return lambda row: row.right(reading)


def _longer(row: JudgedPair) -> float:
    """1/2 where both are as long."""
    first, second = row.num_chars
    return 0.5 if first == second else float((first > second) == (row.best == 0))


def _accuracies(rows: Rows, right: Right) -> dict[str, Any]:
    groups = {group: _share(list(map(right, own)), own) for group, own in _by_group(rows).items()}
    whole = _share(list(map(right, rows)), rows)
    macro = as_numbers(mean_of([interval_of(one) for one in groups.values()]), len(rows))
    return {
        "groups": groups,
        "macro": macro,
        "overall": whole,
        "macro over chance": _over_chance(macro),
        "overall over chance": _over_chance(whole),
    }


def _biases(rows: Rows, reading: str, seed: int) -> dict[str, Number | None]:
    """What a judge goes by beside the answers' worth, and whether it knows how sure it is."""
    told = [(row, p) for row in rows if (p := row.preference(reading)) is not None]
    unequal = [row for row, p in told if row.num_chars[0] != row.num_chars[1] and p != 0.5]
    longer = [float(_is_longer(row, row.picked(reading))) for row in unequal]
    best = [float(_is_longer(row, row.best)) for row in unequal]
    return {
        "answered": _share([float(row.preference(reading) is not None) for row in rows], rows),
        "ties": _share([float(p == 0.5) for _, p in told], [row for row, _ in told]),
        "took answer 1": _mean(*_ones(rows, reading), seed),
        "same in both orders": _mean(*_same(rows, reading), seed),
        "took the longer answer": _share(longer, unequal),
        "longer answer is better": _share(best, unequal),
        "length bias": _gained(longer, best, unequal, seed),
        "calibration error": _calibration(told, seed),
    }


def _ones(rows: Rows, reading: str) -> tuple[list[float], Rows]:
    """The share of answers "1" of each pair, over orders or trials; 1/2 has no bias of position."""
    found = []
    for row in rows:
        if reading == "verdict" and row.verdict is not None and None not in (row.verdict.p_one or (None,)):
            picked = [np.sign((p or 0.0) - 0.5) / 2 + 0.5 for p in row.verdict.p_one or ()]
        else:
            trials = row.generated or () if reading == WRITTEN else ()
            picked = [float(trial.read[STRICT] == 1) for trial in trials if trial.read[STRICT] is not None]
        if picked:
            found.append((float(np.mean(picked)), row))
    return [value for value, _ in found], [row for _, row in found]


def _same(rows: Rows, reading: str) -> tuple[list[float], Rows]:
    """How often the same answer is preferred in both orders, of each pair; trials are taken two by two."""
    found = []
    for row in rows:
        if reading == "verdict" and row.verdict is not None and None not in (row.verdict.p_one or (None,)):
            forth, back = row.verdict.p_one or (0.0, 0.0)
            found.append((float(((forth or 0.0) > 0.5) == ((back or 0.0) < 0.5)), row))
        elif reading == WRITTEN and row.generated:
            places = [trial.picked(STRICT) for trial in row.generated]
            both = [float(a == b) for a, b in zip(places[::2], places[1::2]) if a is not None and b is not None]
            found += [(float(np.mean(both)), row)] if both else []
    return [value for value, _ in found], [row for _, row in found]


def _is_longer(row: JudgedPair, place: int | None) -> bool:
    return place is not None and row.num_chars[place] > row.num_chars[1 - place]


def _calibration(told: Sequence[tuple[JudgedPair, float]], seed: int) -> Number | None:
    """Of max(p, 1 - p) as the probability to be right."""
    if not told:
        return None
    sure = np.array([max(p, 1 - p) for _, p in told])
    right = np.array([0.5 if p == 0.5 else float((p < 0.5) == row.best) for row, p in told])
    answers = JudgeAnswers(right, sure, [row.cluster for row, _ in told])
    return as_numbers(calibration_error(answers, seed), len(told))


def _parsers(rows: Rows) -> dict[str, Any]:
    """How each program reads the same written verdicts, and the accuracies that it would print.

    A pair is right, or wrong, when more than half of its trials are. `all`: what is neither counts as wrong; `decided`:
    it is left out, which is how VL-RewardBench prints accuracies.
    """
    found = {}
    for parser in rows[0].parsers:
        votes = [row.votes(parser) for row in rows]
        right = [float(every[0] > sum(every) / 2) for every in votes]
        decided = [place for place, every in enumerate(votes) if max(every[:2]) > sum(every) / 2]
        own, values = [rows[place] for place in decided], [right[place] for place in decided]
        trials = [(float(value), row) for row, every in zip(rows, votes) for value in _read(every)]
        found[parser] = {
            "read": _share([value for value, _ in trials], [row for _, row in trials]),
            "all": {"overall": _share(right, rows), "macro": _macro(right, rows)},
            "decided": {"overall": _share(values, own), "macro": _macro(values, own)},
        }
    return found


def _read(votes: tuple[int, int, int]) -> list[bool]:
    agree, reject, unread = votes
    return [True] * (agree + reject) + [False] * unread


def _macro(values: Sequence[float], rows: Rows) -> Number | None:
    if not rows:
        return None
    groups: dict[str, list[tuple[float, JudgedPair]]] = {}
    for value, row in zip(values, rows, strict=True):
        groups.setdefault(row.group, []).append((value, row))
    shares = [_share(*zip(*own)) for own in groups.values()]
    return as_numbers(mean_of([interval_of(one) for one in shares]), len(rows))


def _differences(arms: Mapping[str, tuple[Rows, Right]], base: str, seed: int) -> dict[str, Any]:
    """Arm minus base on the same pairs; p by sign flips of whole clusters, corrected by Holm."""
    rows, right = arms[base]
    known = {row.number: (row, right(row)) for row in rows}
    found: dict[str, Any] = {}
    for name, (own, rule) in arms.items():
        pairs = [(known[row.number][1], rule(row), row) for row in own if row.number in known]
        if name == base or not pairs:
            continue
        before, after, both = (list(column) for column in zip(*pairs))
        clusters, groups = [row.cluster for row in both], [row.group for row in both]
        sums: dict[int, float] = {}
        for a, b, cluster in zip(after, before, clusters):
            sums[cluster] = sums.get(cluster, 0.0) + a - b
        found[name] = {
            "overall": as_numbers(paired_bootstrap(after, before, clusters, seed), len(both)),
            "macro": as_numbers(paired_bootstrap(after, before, clusters, seed, tags=groups), len(both)),
            "p": weighted_sign_flip_test(list(sums.values()), seed),
        }
    for name, p in zip(found, holm([one["p"] for one in found.values()])):
        found[name]["p corrected"] = p
    return found


def _by_group(rows: Rows) -> dict[str, list[JudgedPair]]:
    found: dict[str, list[JudgedPair]] = {}
    for row in rows:
        found.setdefault(row.group, []).append(row)
    return dict(sorted(found.items()))


def _share(values: Sequence[float], rows: Rows) -> Number:
    return as_numbers(clustered_wilson(values, [row.cluster for row in rows]) if values else None, len(values))


def _mean(values: Sequence[float], rows: Rows, seed: int) -> Number | None:
    if not values:
        return None
    return as_numbers(cluster_bootstrap(values, [row.cluster for row in rows], seed, ends=(0.0, 1.0)), len(values))


def _gained(after: Sequence[float], before: Sequence[float], rows: Rows, seed: int) -> Number | None:
    if not rows:
        return None
    return as_numbers(paired_bootstrap(after, before, [row.cluster for row in rows], seed), len(rows))


def _over_chance(one: Number) -> Number:
    return one | {key: None if one[key] is None else 2 * one[key] - 1 for key in Interval._fields}
