"""The tables of a run of `evaluate_judges`, as cells and as Markdown."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from genloop.stats.markdown import table_head, table_row

_BIASES = (
    *("took answer 1", "same in both orders", "took the longer answer", "longer answer is better", "length bias"),
    *("calibration error", "ties", "answered"),
)
NOTE = (
    "95 % intervals; pairs about one image are a cluster. Macro is the mean of the groups, a coin has 50 %. Over "
    "chance is 2 accuracy - 1. Ties count half. Written verdicts are right when more than half of all trials say so, "
    "read strictly. The longer answer is the control: it reads nothing."
)
Table = tuple[str, Sequence[str], list[list[str]]]  # title, head, cells


def markdown(found: Mapping[str, Any]) -> str:
    """Every table of the summary."""
    counts = ", ".join(f"{group} {number}" for group, number in found["groups"].items())
    lead = f"{found['pairs']} pairs about {found['clusters']} images: {counts}."
    parts = [
        f"## {title}\n\n" + "\n".join([*table_head(head), *map(table_row, rows)]) for title, head, rows in tables(found)
    ]
    return "\n\n".join([lead, *parts, NOTE]) + "\n"


def tables(found: Mapping[str, Any]) -> Iterator[Table]:
    """Title, head and cells of each."""
    arms, groups = found["arms"], list(found["groups"])
    rows = [
        [name, *(_percent(one[key]) for key in ("macro", "overall", "macro over chance"))]
        + [_percent(one["groups"].get(group)) for group in groups]
        for name, one in arms.items()
    ]
    yield "Accuracy", ("judge / asked by", "macro", "overall", "macro over chance", *groups), rows
    if found["written"]:
        head = ("judge / parser", "read", "macro, unread is wrong", "overall, unread is wrong")
        yield (
            "Written verdicts, the same texts as four programs read them",
            (*head, "macro of the decided", "overall of the decided"),
            [_parsed(judge, parser, one) for judge, own in found["written"].items() for parser, one in own.items()],
        )
    told = [name for name in arms if "answered" in arms[name]]
    rows = [[name, *(_percent(arms[name][key], signed=key == "length bias") for key in _BIASES)] for name in told]
    yield "What else judges go by", ("judge / asked by", *_BIASES), rows
    rows = [
        [f"{name} - {found['base']}", _percent(one["macro"], signed=True), _percent(one["overall"], signed=True)]
        + [_p(one["p corrected"]), str(one["overall"]["n"])]
        for name, one in found["over base"].items()
    ]
    if rows:
        yield "Paired differences", ("difference", "macro", "overall", "p, corrected", "pairs"), rows
    if "judges" in found:
        rows = [[name, _facts(one), one["fingerprint"][:16]] for name, one in found["judges"].items()]
        yield "Judges", ("judge", "what it is", "fingerprint"), rows


def _parsed(judge: str, parser: str, one: Mapping[str, Any]) -> list[str]:
    places = (("all", "macro"), ("all", "overall"), ("decided", "macro"), ("decided", "overall"))
    return [f"{judge} / {parser}", _percent(one["read"]), *(_percent(one[rule][what]) for rule, what in places)]


def _facts(one: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in one.items() if name != "fingerprint")


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _percent(one: Mapping[str, Any] | None, signed: bool = False) -> str:
    """61.2 (58.0 to 64.3), n = 1250"""
    if one is None or one["estimate"] is None:
        return "–"
    sign = "+" if signed else ""
    bounds = "" if one["low"] is None else f" ({100 * one['low']:{sign}.1f} to {100 * one['high']:{sign}.1f})"
    return f"{100 * one['estimate']:{sign}.1f}{bounds}, n = {one['n']}"
