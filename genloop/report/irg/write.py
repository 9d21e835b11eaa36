"""The page of a run of `benchmark_irg`, drawn again with the images of the traces that critics read best and worst."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from genloop.config import read_yaml
from genloop.data.image_reader import UnreadableImage, decode_image
from genloop.data.irg.corpus import Corpus
from genloop.ledger import read_rows
from genloop.reading import read_json_object
from genloop.report.cards import PictureCard, Shot
from genloop.report.figures.canvas import write_figure
from genloop.report.figures.shares import shares_svg
from genloop.report.files import record_of
from genloop.report.irg.benchmark import markdown, page, said, shares_of
from genloop.report.page.pictures import EmbeddedImage, embed_pixels
from genloop.report.page.selection import best_and_worst
from genloop.rundir import write_atomic, write_json
from genloop.runs.lineage import locate

EXTREMES = 4


def write_benchmark(run: Path, out: Path) -> Path:
    """Write index.html, table.md and summary.json -> the path of the page; ValueError while a unit is left."""
    if not (run / "summary.json").is_file():
        raise ValueError(f"{run} is not finished, there is nothing to report; run the same command again")
    found, rows = read_json_object(run / "summary.json"), list(read_rows(run))
    figure = shares_svg(shares_of(found), list(found["critics"]), "Critics", "share of traces, in %")
    files = ["table.md", "summary.json", "shares.svg", "shares.png"]
    shown = {"extremes": _extremes(run, rows), "records": [record_of(run)], "files": files}
    out.mkdir(parents=True, exist_ok=True)
    write_figure(out / "shares", figure)
    if out != run:
        write_json(out / "summary.json", found)
    write_atomic(out / "table.md", markdown(found).encode())
    write_atomic(out / "index.html", page(found, rows, shown).encode())
    return out / "index.html"


def _extremes(run: Path, rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[PictureCard]]]:
    """The traces whose faults the critics name best and worst; [] where the corpus has gone."""
    by_trace: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_trace.setdefault(row["id"], []).append(row)
    scored = [(sum(map(_overlap, own)) / len(own), name, own) for name, own in by_trace.items()]
    pictures = _pictures(run, {name for _, name, _ in scored})
    cards = [(score, name, _card(own, pictures[name])) for score, name, own in scored if name in pictures]
    return best_and_worst(cards, EXTREMES)


def _overlap(row: Mapping[str, Any]) -> float:
    """Faults that were put in and named, as a share of all that were either (Jaccard); 1 where there are none."""
    put_in, named = set(row["injected"]), set(row["said"])
    return len(put_in & named) / len(put_in | named) if put_in | named else 1.0


def _pictures(run: Path, names: set[str]) -> dict[str, tuple[str, EmbeddedImage | None]]:
    """{trace: its instruction, and the image that critics saw first}"""
    config = read_yaml(run / "config.yaml")
    try:
        corpus = Corpus(locate(Path(config["source"]), run), config.get("split", "test"))
    except (KeyError, ValueError, FileNotFoundError):  # moved since, or a run of an older version
        return {}
    found = {}
    for number in range(len(corpus)):
        record, fields = corpus[number]
        if record.id in names and record.rounds:
            found[record.id] = fields.get("txt", b"").decode("utf-8", "replace"), _embedded(fields, record)
    return found


def _embedded(fields: Mapping[str, bytes], record: Any) -> EmbeddedImage | None:
    try:
        return embed_pixels(decode_image(fields[record.rounds[0].image]))
    except (KeyError, OSError, UnreadableImage):
        return None


def _card(rows: Sequence[Mapping[str, Any]], shown: tuple[str, EmbeddedImage | None]) -> PictureCard:
    text, picture = shown
    faults = ", ".join(rows[0]["injected"]).replace("_", " ") or "none"
    notes = [f"{row['critic']}: {said(row)}" for row in rows]
    return PictureCard(text, (Shot(picture, text, f"faults: {faults}"),), tuple(notes))
