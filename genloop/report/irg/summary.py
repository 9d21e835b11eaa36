"""Counts and rates of a refinement corpus, from the rows of its traces."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from genloop.data.irg.faults import NUM_BINS
from genloop.data.irg.record import CONTENT_ISSUES, ISSUES, OPS
from genloop.stats.intervals import clustered_wilson

Row = Mapping[str, Any]
Outcome = tuple[str, bool]  # its cluster, and whether it is so


def summarize(rows: Sequence[Row]) -> dict[str, Any]:
    """The rows of all traces, refused ones included -> counts, recall of faults by bin, success of actions."""
    made = [row for row in rows if "refused" not in row]
    refused = Counter(row["refused"].partition(": ")[2] or row["refused"] for row in rows if "refused" in row)
    return {
        "traces": len(made),
        "refused": dict(sorted(refused.items())),
        "rounds": _counts(row["rounds"] for row in made),
        "ends": _counts(row["end"] for row in made),
        **{name: _counts(row[name] for row in made) for name in ("split", "kind", "intent")},
        "clean": rate((row["scene"], row["kind"] == "clean") for row in made),
        "false_alarms": rate((row["scene"], bool(row["found"])) for row in made if row["kind"] == "clean"),
        "found": {issue: found for issue in ISSUES if (found := _recall(made, issue))},
        "actions": {op: rate_of_op for op in OPS if (rate_of_op := _success(made, op))},
        "taken_back": rate((row["scene"], not accepted) for row in made for _, accepted in row["done"]),
        "wrong_taken_back": rate(
            (row["scene"], not row["done"][0][1]) for row in made if row["begins_wrong"] and row["done"]
        ),
    }


def rate(outcomes: Iterable[Outcome]) -> dict[str, Any] | None:
    """{"n", "estimate", "low", "high"}; None without any outcome.

    Rounds of a trace and traces of an image are not independent: the scene, or the image, is the cluster.
    """
    found = list(outcomes)
    if not found:
        return None
    clusters, values = zip(*found, strict=True)
    return {"n": len(found), **clustered_wilson(values, clusters)._asdict()}


def _counts(values: Iterable[Any]) -> dict[str, int]:
    return {str(value): number for value, number in sorted(Counter(values).items())}


def _recall(rows: Sequence[Row], issue: str) -> dict[str, Any]:
    """By bin of severity: how often the first look finds a fault that was put in."""
    outcomes: dict[int, list[Outcome]] = defaultdict(list)
    for row in rows:
        for kind, level in row["injected"]:
            if kind == issue:
                outcomes[level].append((row["scene"], issue in row["found"]))
    if issue in CONTENT_ISSUES:
        return {"all": rate(found for of_bin in outcomes.values() for found in of_bin)} if outcomes else {}
    return {str(level): rate(outcomes[level]) for level in range(NUM_BINS) if outcomes[level]}


def _success(rows: Sequence[Row], op: str) -> dict[str, Any] | None:
    """How often rounds with this operation were accepted, wrong first actions left out."""
    rounds = ((row["scene"], done) for row in rows for done in row["done"][1 if row["begins_wrong"] else 0 :])
    return rate((scene, accepted) for scene, (ops, accepted) in rounds if op in ops)
