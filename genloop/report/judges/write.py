"""The page of a run of `evaluate_judges`: pictures with both answers and what every judge said, then the numbers.

One HTML file that needs nothing else, without a script; its bytes depend on the run folder and on the pairs alone.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from genloop import ledger
from genloop.config import read_yaml
from genloop.data.responses.pair import ResponsePair, ResponsePairs
from genloop.data.responses.read import ResponseData, open_pairs
from genloop.reading import read_object_or_empty
from genloop.report.heads import Head
from genloop.report.judges.tables import NOTE, markdown, tables
from genloop.report.page.chart import Chart, dot_and_whisker
from genloop.report.page.pictures import embed_pixels
from genloop.report.page.provenance import config_of, facts_of
from genloop.report.page.selection import spread
from genloop.report.rendering import render
from genloop.rundir import read_run, write_atomic
from genloop.runs.judged import JudgedPair, by_arm, read_judged
from genloop.runs.lineage import locate
from genloop.stats.intervals import Interval
from genloop.stats.judges.pairs import CONTROL, arm_name, summarize

CARDS, TEXT = 24, 1200  # pairs that are shown, and letters of an answer or a verdict


@dataclass(frozen=True, slots=True)
class JudgedCard:
    """One pair with the rows of all judges."""

    rows: tuple[JudgedPair, ...]

    @property
    def tag(self) -> str:
        return self.rows[0].group

    @property
    def outcome(self) -> str:
        """How many arms are right: pairs on which judges differ are shown beside those on which they agree."""
        said = [row.right(reading) for row in self.rows for reading in row.readings]
        return "all right" if min(said) == 1 else "all wrong" if max(said) == 0 else "divided"


def write_judges(folder: Path, out: Path) -> Path:
    """Write index.html, table.md and table.json -> the path of the page; ValueError while there is no row."""
    rows = list(read_judged(folder))
    if not rows:
        raise ValueError(f"{folder} has no finished unit yet, there is nothing to report")
    last = read_object_or_empty(folder / "summary.json")
    arms = [arm_name(*arm) for arm in by_arm(rows)]
    base = last.get("base") if last.get("base") in arms else arms[0]
    config = read_yaml(folder / "config.yaml")
    found = summarize(rows, str(base), config.get("seed", 0))
    found |= {"judges": last["judges"]} if "judges" in last else {}
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / "table.md", markdown(found).encode())
    write_atomic(out / "table.json", (json.dumps(found, indent=1, ensure_ascii=False) + "\n").encode())
    write_atomic(out / "index.html", render("judges.html.j2", _content(folder, config, rows, found)).encode())
    return out / "index.html"


def _content(
    folder: Path, config: Mapping[str, Any], rows: Sequence[JudgedPair], found: Mapping[str, Any]
) -> dict[str, Any]:
    """What the template needs, by name."""
    by_number: dict[int, list[JudgedPair]] = {}
    for row in rows:
        by_number.setdefault(row.number, []).append(row)
    cards = spread([JudgedCard(tuple(own)) for own in by_number.values()], CARDS)
    pairs = _pairs(folder, config)
    units = ledger.count(folder, ledger.plan_of(folder).get("units", len(ledger.finished(folder))))
    left = f" {units.total - units.done} of {units.total} units are left." if units.done < units.total else ""
    arms = list(found["arms"])
    return {
        "title": f"Judges of answers: {folder.resolve().name}",
        "lead": f"{found['pairs']} pairs of answers about {found['clusters']} images, judged by "
        f"{len({row.judge for row in rows})} judges.{left}",
        "cards": [_card(card, pairs) for card in cards],
        "num_pairs": len(by_number),
        "heads": list(_heads(found)),
        "runs": [{"number": place, "letter": chr(65 + place % 26), "name": name} for place, name in enumerate(arms)],
        "chart": _chart(found),
        "tables": [{"title": title, "head": head, "rows": cells} for title, head, cells in tables(found)],
        "note": NOTE,
        "record": {"name": folder.resolve().name, "job": (read_run(folder) or {})["job"], "facts": facts_of(folder)},
        "config": config_of(folder),
    }


def _pairs(folder: Path, config: Mapping[str, Any]) -> ResponsePairs | None:
    """The pairs of a run where they are still there; texts and images are shown from them."""
    try:
        data = ResponseData.model_validate(config["data"], strict=False)
        places = {"path": locate(data.path, folder), "images": data.images and locate(data.images, folder)}
        return open_pairs(data.model_copy(update=places))
    except (KeyError, ValidationError, ValueError, FileNotFoundError):
        return None  # moved or changed since: the page then has the verdicts alone


def _card(card: JudgedCard, pairs: ResponsePairs | None) -> dict[str, Any]:
    first = card.rows[0]
    pair = pairs[first.number] if pairs is not None and first.number < len(pairs) else None
    if pair is not None and (pair.id, pair.best) != (first.id, first.best):
        pair = None  # another file by now
    image = pairs.image(first.number) if pair is not None and pairs is not None else None
    drawn = pairs.drawn(first.number) if pair is not None and pairs is not None else []
    return {
        "id": first.id,
        "group": first.group,
        "picture": None if image is None else embed_pixels(image),
        "query": pair.query[:TEXT] if pair else "",
        "answers": [
            {
                "letter": "AB"[place],
                "text": _answer(pair, place),
                "picture": embed_pixels(drawn[place]) if drawn else None,
                "is_better": place == first.best,
            }
            for place in (0, 1)
        ],
        "is_drawn": bool(drawn),
        "said": [_said(row, reading) for row in card.rows for reading in row.readings],
        "written": [_written(row) for row in card.rows if row.generated],
    }


def _answer(pair: ResponsePair | None, place: int) -> str:
    return pair.responses[place][:TEXT] if pair else ""


def _said(row: JudgedPair, reading: str) -> dict[str, Any]:
    p, picked = row.preference(reading), row.picked(reading)
    words = "no answer" if p is None else "a tie" if picked is None else f"{'AB'[picked]}, {max(p, 1 - p):.0%}"
    return {"name": arm_name(row.judge, reading), "words": words, "right": row.right(reading)}


def _written(row: JudgedPair) -> dict[str, str]:
    """The first written verdict, and what was read in it."""
    trial = (row.generated or ())[0]
    read = ", ".join(f"{parser} {'–' if number is None else number}" for parser, number in trial.read.items())
    shown = "A is answer 1" if trial.order == "as given" else "B is answer 1"
    return {"judge": row.judge, "text": (trial.text or "")[:TEXT], "read": f"{shown}; read as {read}"}


def _heads(found: Mapping[str, Any]) -> Iterator[Head]:
    """The macro accuracy of each arm."""
    for name, one in found["arms"].items():
        macro = one["macro"]
        interval = f"95 % interval {100 * macro['low']:.1f} to {100 * macro['high']:.1f}"
        notes = interval, f"n = {macro['n']} pairs, a coin has 50 %"
        yield Head(name if name == CONTROL else f"Macro accuracy, {name}", f"{100 * macro['estimate']:.1f} %", notes)


def _chart(found: Mapping[str, Any]) -> Chart:
    arms = list(found["arms"].values())
    rows = [
        (group, [(place, _interval(arm["groups"].get(group))) for place, arm in enumerate(arms)])
        for group in found["groups"]
    ]
    rows.append(("macro", [(place, _interval(arm["macro"])) for place, arm in enumerate(arms)]))
    return dot_and_whisker(rows, [(share, f"{share:.0%}") for share in (0.0, 0.25, 0.5, 0.75, 1.0)])


def _interval(one: Mapping[str, Any] | None) -> Interval | None:
    return None if one is None else Interval(one["estimate"], one["low"], one["high"])
