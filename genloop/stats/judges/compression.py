"""What smaller judges cost and keep, each beside the original over the same pairs of answers."""

from collections.abc import Mapping, Sequence
from typing import Any

from genloop.runs.judged import JudgedPair
from genloop.runs.measured import MeasuredJudge
from genloop.stats.intervals import clustered_wilson
from genloop.stats.latency import latency
from genloop.stats.retention import Criterion, Retention, retention

Rows = Sequence[JudgedPair]
COSTS = ("weights", "flops", "seconds")  # that accuracy is drawn against


def shared_rows(judged: Mapping[str, Rows], original: str) -> dict[str, Rows]:
    """The rows of the pairs that all judges saw, in order; ValueError where there are none or they are other pairs."""
    by_number = {name: {row.number: row for row in rows} for name, rows in judged.items()}
    shared = sorted(set.intersection(*(set(rows) for rows in by_number.values())))
    if not shared:
        raise ValueError(f"runs: no pair was judged by all of {', '.join(judged)}")
    for name, rows in by_number.items():
        for number in shared:
            own, other = rows[number], by_number[original][number]
            if (own.id, own.best) != (other.id, other.best):
                raise ValueError(f"runs: pair {number} of {name} is not that of {original}; judge the same file")
    return {name: [rows[number] for number in shared] for name, rows in by_number.items()}


def summarize_compression(
    measured: Sequence[MeasuredJudge],
    judged: Mapping[str, Rows],
    original: str,
    reading: str,
    *,
    criterion: Criterion,
    goal: float,
    seed: int,
) -> dict[str, Any]:
    """Costs of every measured judge, and what it keeps of `original`, whose accuracy alone is told."""
    rows = shared_rows({one.judge: judged[one.judge] for one in measured}, original)
    base, clusters = _right(rows[original], reading), [row.cluster for row in rows[original]]
    whole = next(one for one in measured if one.judge == original)
    found: dict[str, Any] = {}
    for one in measured:
        kept = None if one is whole else retention(base, _right(rows[one.judge], reading), clusters, seed)
        found[one.judge] = costs_of(one) | {
            "of original": {key: _ratio(_cost(one, key), _cost(whole, key)) for key in COSTS},
            "accuracy": (kept.smaller if kept else clustered_wilson(base, clusters))._asdict(),
            "kept": None if kept is None else _kept(kept),
            "verdict": "original" if kept is None else kept.verdict(goal, criterion),
        }
    return {
        "original": original,
        "reading": reading,
        "criterion": criterion,
        "goal": goal,
        "pairs": len(base),
        "clusters": len(set(clusters)),
        "judges": found,
    }


def costs_of(one: MeasuredJudge) -> dict[str, Any]:
    """The numbers of a row, seconds as percentiles."""
    told = one.model_dump(exclude={"judge", "seconds"})
    return told | {"weights": _cost(one, "weights"), "latency": latency(one.seconds).to_json()}


def _kept(kept: Retention) -> dict[str, Any]:
    return {key: value for key, value in kept.to_json().items() if key not in ("original", "smaller")}


def _right(rows: Rows, reading: str) -> list[float]:
    return [row.right(reading) for row in rows]


def _cost(one: MeasuredJudge, key: str) -> float | None:
    if key == "weights":
        return float(sum(one.bytes_by_dtype.values())) or None
    return one.flops or None if key == "flops" else latency(one.seconds).p50.estimate


def _ratio(value: float | None, whole: float | None) -> float | None:
    return None if value is None or whole is None else value / whole
