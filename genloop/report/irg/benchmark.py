"""The numbers of `benchmark_irg` as Markdown and as one HTML file that needs nothing else, without a script."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from genloop.report.cards import Head
from genloop.report.page.chart import Chart, dot_and_whisker
from genloop.report.rendering import render
from genloop.stats.intervals import Interval
from genloop.stats.markdown import table_head, table_row

CHARTED = (
    *("macro-F1 against faults", "exact set against faults", "macro-F1 against rules", "faithful numbers"),
    *("valid format", "false alarms on clean images", "actions that gain", "target reached"),
)
SHOWN = 12  # traces
READING = (
    "Intervals are 95 %, over scenes: traces of one scene are alike. Differences are paired by trace, the named critic "
    "minus the base. A share that is drawn without a whisker has too few traces for an interval."
)
Numbers = Mapping[str, Mapping[str, Any]]


def markdown(found: Mapping[str, Any]) -> str:
    """Every table of the summary."""
    parts = [
        f"## {title}\n\n" + "\n".join([*table_head(head), *map(table_row, rows)])
        for title, head, rows in _tables(found)
    ]
    notes = "95 % intervals over scenes; differences are paired, `after` minus `before`."
    return "\n\n".join([*parts, notes]) + "\n"


def page(found: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], shown: Mapping[str, Any]) -> str:
    """Heads, a chart of the shares, the tables, and some traces with what each critic said.

    `shown` is what else the template shows: pictures and provenance.
    """
    names = list(found["critics"])
    found_tables = [{"title": title, "head": head, "rows": cells} for title, head, cells in _tables(found)]
    traces: dict[str, dict[str, Any]] = {}
    for row in rows:
        one = traces.setdefault(
            row["id"], {"id": row["id"], "injected": ", ".join(row["injected"]) or "none", "said": {}}
        )
        one["said"][row["critic"]] = said(row)
    chosen = list(traces.values())
    return render(
        "irg.html.j2",
        {
            "title": "Critics of images",
            "lead": f"What critics see, quote and repair on {len(traces)} held-out traces.",
            "reading": [READING],
            "heads": list(_heads(found)),
            "runs": [
                {"number": place, "letter": chr(65 + place % 26), "name": name} for place, name in enumerate(names)
            ],
            "chart": _chart(found["critics"]),
            "table": found_tables[0],
            "tables": found_tables[1:],
            "critics": names,
            "traces": [
                chosen[place * len(chosen) // min(SHOWN, len(chosen))] for place in range(min(SHOWN, len(chosen)))
            ],
            "num_traces": len(traces),
            **shown,
        },
    )


def _tables(found: Mapping[str, Any]) -> Iterator[tuple[str, Sequence[str], list[list[str]]]]:
    """Title, head and cells of each."""
    critics: Mapping[str, Numbers] = found["critics"]
    yield "Critics", ("measure", *critics), _across(critics)
    if found["over base"]:
        over = {f"{name} - {found['base']}": numbers for name, numbers in found["over base"].items()}
        yield "Paired differences", ("measure", *over), _across(over, signed=True)
    for key, title in (
        ("by issue", "Faults named where they are, by issue"),
        ("by severity", "All faults named, by severity"),
    ):
        yield title, (key.removeprefix("by "), *critics), _across(found[key])
    if guided := found.get("guided"):
        yield (
            _guided_title(guided),
            ("", "cost in images", "score", "best of k", "difference"),
            list(_guided(guided)),
        )


def _across(arms: Mapping[str, Numbers], *, signed: bool = False) -> list[list[str]]:
    measures = dict.fromkeys(measure for numbers in arms.values() for measure in numbers)
    return [[measure, *(_cell(numbers.get(measure), signed) for numbers in arms.values())] for measure in measures]


def _cell(one: Mapping[str, Any] | None, signed: bool = False) -> str:
    """0.912 (0.871 to 0.944), n = 40"""
    if one is None or one["estimate"] is None:
        return "–" if one is None else f"–, n = {one['n']}"
    sign = "+" if signed else ""
    bounds = "" if one["low"] is None else f" ({one['low']:{sign}.3f} to {one['high']:{sign}.3f})"
    return f"{one['estimate']:{sign}.3f}{bounds}, n = {one['n']}"


def _guided_title(guided: Mapping[str, Any]) -> str:
    counts = f"{guided['images']} images of {guided['prompts']} prompts, {guided['below start']} below their start"
    return f"Guided generation against best-of-k at equal compute: {counts}"


def _guided(guided: Mapping[str, Any]) -> Iterator[list[str]]:
    alone = ("refined prompt alone", "guided over refined prompt alone")
    named = [
        *((f"round {one['round']}", one) for one in guided["rounds"]),
        *((n, guided[n]) for n in alone if n in guided),
    ]
    for name, one in named:
        numbers = [f"{one[key]:.3f}" for key in ("cost in images", "score", "best of k")]
        yield [name, *numbers, _cell(one["difference"], True)]


def _chart(critics: Mapping[str, Numbers]) -> Chart:
    rows = [(measure, list(enumerate(shares))) for measure, shares in shares_of({"critics": critics}).items()]
    return dot_and_whisker(rows, [(share, f"{share:g}") for share in (0.0, 0.25, 0.5, 0.75, 1.0)])


def shares_of(found: Mapping[str, Any]) -> dict[str, list[Interval | None]]:
    """{measure that is charted: that of each critic}"""
    return {measure: [_interval(own.get(measure)) for own in found["critics"].values()] for measure in CHARTED}


def _interval(one: Mapping[str, Any] | None) -> Interval | None:
    if one is None or one["estimate"] is None:
        return None
    ends = (one["estimate"] if one[key] is None else one[key] for key in ("low", "high"))
    return Interval(one["estimate"], *ends)


def _heads(found: Mapping[str, Any]) -> Iterator[Head]:
    for name, numbers in found["critics"].items():
        one = numbers["macro-F1 against faults"]
        notes = f"95 % interval {_cell(one).partition(' ')[2]}", f"valid format {_cell(numbers['valid format'])}"
        yield Head(f"Macro-F1, {name}", "–" if one["estimate"] is None else f"{one['estimate']:.3f}", notes)


def said(row: Mapping[str, Any]) -> str:
    if not row["valid"]:
        return f"refused: {row['problems'][-1] if row['problems'] else 'unknown'}"
    words = ", ".join(f"{issue} {severity:.2f}" for issue, severity in row["said"].items()) or "nothing wrong"
    return f"{words}; composite {row['composite'][0]:.2f} to {row['composite'][-1]:.2f}"
