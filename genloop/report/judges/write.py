"""The page of a run of `evaluate_judges`: pictures with both answers and what every judge said, then the numbers.

One HTML file that needs nothing else, without a script; its bytes depend on the run folder and on the pairs alone.
"""

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
from genloop.report.cards import Head
from genloop.report.figures.shares import shares_svg
from genloop.report.files import record_of, write_files
from genloop.report.judges.tables import NOTE, markdown, tables
from genloop.report.page.chart import Chart, dot_and_whisker
from genloop.report.page.pictures import embed_pixels
from genloop.report.page.selection import best_and_worst, spread
from genloop.runs.judged import JudgedPair, by_arm, read_judged
from genloop.runs.lineage import locate
from genloop.stats.intervals import Interval
from genloop.stats.judges.pairs import CONTROL, arm_name, summarize

CARDS, SUREST, TEXT = 24, 3, 1200  # pairs that are shown, of each kind at the top, letters of a text


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

    @property
    def sureness(self) -> float | None:
        """The mean of P(the better answer) over all judges and readings that gave one; None where none did."""
        asked = [row.preference(reading) for row in self.rows for reading in row.readings]
        best = self.rows[0].best
        given = [1 - p if best else p for p in asked if p is not None]
        return sum(given) / len(given) if given else None


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
    content = _content(folder, config, rows, found)
    measured = found["arms"].values()
    by_group = {group: [_interval(arm["groups"].get(group)) for arm in measured] for group in found["groups"]}
    by_group["macro"] = [_interval(arm["macro"]) for arm in measured]
    figure = shares_svg(by_group, arms, "Accuracy by group", "pairs judged right, in %")
    return write_files(
        out, "judges.html.j2", content, table=markdown(found), numbers=found, figures={"accuracy": figure}
    )


def _content(
    folder: Path, config: Mapping[str, Any], rows: Sequence[JudgedPair], found: Mapping[str, Any]
) -> dict[str, Any]:
    """What the template needs, by name."""
    by_number: dict[int, list[JudgedPair]] = {}
    for row in rows:
        by_number.setdefault(row.number, []).append(row)
    judged = [JudgedCard(tuple(own)) for own in by_number.values()]
    surest = _surest(judged)
    cards = spread([card for card in judged if not any(card in found for _, found in surest)], CARDS)
    pairs = _pairs(folder, config)
    units = ledger.count(folder, ledger.plan_of(folder).get("units", len(ledger.finished(folder))))
    left = f" {units.total - units.done} of {units.total} units are left." if units.done < units.total else ""
    arms = list(found["arms"])
    return {
        "title": f"Judges of answers: {folder.resolve().name}",
        "lead": f"{found['pairs']} pairs of answers about {found['clusters']} images, judged by "
        f"{len({row.judge for row in rows})} judges.{left}",
        "surest": [(name, [_card(card, pairs) for card in found]) for name, found in surest],
        "cards": [_card(card, pairs) for card in cards],
        "num_pairs": len(by_number),
        "heads": list(_heads(found)),
        "runs": [{"number": place, "letter": chr(65 + place % 26), "name": name} for place, name in enumerate(arms)],
        "chart": _chart(found),
        "table": (shown := [{"title": title, "head": head, "rows": cells} for title, head, cells in tables(found)])[0],
        "tables": shown[1:],
        "reading": [NOTE],
        "records": [record_of(folder)],
    }


def _surest(cards: Sequence[JudgedCard]) -> list[tuple[str, list[JudgedCard]]]:
    """The pairs on which the judges are most surely right, and most surely wrong: by the mean P(the better one)."""
    scored = [(share, card.rows[0].id, card) for card in cards if (share := card.sureness) is not None]
    titles = {"Best": "Most surely right", "Worst": "Most surely wrong"}
    return [(titles[name], found) for name, found in best_and_worst(scored, SUREST)]


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
