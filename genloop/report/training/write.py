"""The page of one training, put together, rendered and written: pictures first, then curves, alarms and provenance.

One HTML file that needs nothing else, without a script; its bytes depend on the run folder alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genloop.report.cards import Head, PictureCard, Shot
from genloop.report.figures.curves import curves_svg
from genloop.report.files import record_of, write_files
from genloop.report.general.write import notices
from genloop.report.page.pictures import EmbeddedImage, embed
from genloop.report.page.selection import best_and_worst
from genloop.report.training.curves import figures, number, sections
from genloop.runs.trainings import PreviewLook, Training, read_training
from genloop.stats.markdown import table_head, table_row

COLUMNS, PROMPTS, EXTREMES = 8, 12, 4  # looks and prompts that are shown, best and worst ones
HEAD = ("number", "first", "last", "interval of the last")
SIDE = 160  # px of an embedded image
READING = (
    "First and last are the first and the newest value of a number in metrics.jsonl. The interval is that of the "
    "newest value: {level} % for changes since step 0, which are paired by prompt, and 95 % elsewhere. A number "
    "without an interval is that of single steps and moves by chance as well. Dashed lines in curves are steps with "
    "an alarm."
)
JUDGE, HELD_OUT = "judge", "held_out_judge"


@dataclass(frozen=True, slots=True)
class LookShot:
    """One image at a step, and what judges said of it."""

    step: int
    picture: EmbeddedImage | None
    words: tuple[str, ...]


def write_training(folder: Path, out: Path | None = None) -> Path:
    """Write index.html, table.md and table.json of a training into `out` (its report/) -> the path of the page."""
    training = read_training(folder)
    out = out or folder / "report"
    rows = list(figures(training))
    table = [f"{training.job}, step {training.done} of {training.total}", "", *table_head(HEAD), *map(table_row, rows)]
    numbers = {
        "job": training.job,
        "step": training.done,
        "best": training.best,
        "stopped": dict(training.stopped) or None,
        "last": {key: points[-1][1] for key, points in training.series.items()},
    }
    plots = sections(training)
    first = {plot.title: plot.keys for _, found in plots[:1] for plot in found}
    drawn = {"curves": curves_svg(training.series, first, plots[0][0])} if first else {}
    content = _content(training, rows) | {"sections_of_curves": plots}
    return write_files(out, "training.html.j2", content, table="\n".join(table) + "\n", numbers=numbers, figures=drawn)


def _content(training: Training, rows: Sequence[tuple[str, str, str, str]]) -> dict[str, Any]:
    """What the template needs, by name."""
    looks = chosen_looks(training)
    name = training.folder.resolve().name
    named = [(key.replace("_", " "), *cells) for key, *cells in rows]
    return {
        "title": f"Training of {name}",
        "lead": _lead(training),
        "notices": list(_notices(training)),
        "heads": list(_heads(training)),
        "looks": looks,
        "best": training.best,
        "stopped_at": training.stopped.get("step"),
        "gallery": [(prompt, [_look(look, place) for look in looks]) for place, prompt in _prompts(looks)],
        "num_prompts": len(looks[0].prompts) if looks else 0,
        "num_looks": len(training.looks),
        "extremes": _extremes(training),
        "alarms": _alarms(training),
        "table": {"title": "Main numbers", "head": HEAD, "rows": [row for row in named if row[3] or row[0] == "loss"]},
        "tables": [{"title": f"All {len(named)} numbers", "head": HEAD, "rows": named}],
        "reading": [READING.format(level=f"{100 * training.level:g}")],
        "records": [record_of(training.folder)],
    }


def _extremes(training: Training) -> list[tuple[str, list[PictureCard]]]:
    """Of the newest look the prompts with the highest and the lowest score, each beside its image at the first look."""
    if not training.looks:
        return []
    last, first = training.looks[-1], training.looks[0]
    key = HELD_OUT if any(value is not None for value in last.measures.get(HELD_OUT, ())) else JUDGE
    known = enumerate(last.measures.get(key, ())[: len(last.prompts)])
    scored = [(value, place, place) for place, value in known if value is not None]
    looks = [first, last] if first.step != last.step else [last]
    return [(name, [_compared(looks, place) for place in places]) for name, places in best_and_worst(scored, EXTREMES)]


def _compared(looks: Sequence[PreviewLook], place: int) -> PictureCard:
    prompt, shots = looks[-1].prompts[place], []
    for look in looks:
        one = _look(look, place)
        words = ", ".join((f"step {one.step}", *one.words))
        shots.append(Shot(one.picture, f"{prompt}, step {one.step}", words))
    return PictureCard(prompt, tuple(shots))


def chosen_looks(training: Training, columns: int = COLUMNS) -> list[PreviewLook]:
    """At most so many looks: the first, the last, that of the best checkpoint, the others evenly between."""
    looks = training.looks
    if len(looks) <= columns:
        return list(looks)
    places = {round(i * (len(looks) - 1) / (columns - 1)) for i in range(columns)}
    best = next((place for place, look in enumerate(looks) if look.step == training.best), None)
    if best is not None and best not in places:
        places.remove(min(places - {0, len(looks) - 1}, key=lambda place: abs(place - best)))
        places.add(best)
    return [looks[place] for place in sorted(places)]


def _prompts(looks: Sequence[PreviewLook]) -> Iterator[tuple[int, str]]:
    """Prompts that are shown, spread over all."""
    count = len(looks[0].prompts) if looks else 0
    shown = min(count, PROMPTS)
    for i in range(shown):
        place = i * count // shown
        yield place, looks[0].prompts[place]


def _look(look: PreviewLook, place: int) -> LookShot:
    said = []
    for key, label in ((JUDGE, "judge"), (HELD_OUT, "held out")):
        values = look.measures.get(key, ())
        if place < len(values) and (value := values[place]) is not None:
            said.append(f"{label} {value:.2f}")
    return LookShot(look.step, embed(look.image(place), SIDE), tuple(said))


def _lead(training: Training) -> str:
    """Where it stands, in one sentence."""
    if training.stopped:
        kinds = sorted({str(alarm.get("alarm", "")).replace("_", " ") for alarm in training.stopped.get("alarms", ())})
        rolled = f"its result is the checkpoint of step {training.best}"
        end = rolled if training.stopped.get("action") == "rollback" else "it failed"
        return f"{training.job}: ended at step {training.stopped.get('step')} by an alarm ({', '.join(kinds)}); {end}."
    if training.done < training.total:
        return f"{training.job}: step {training.done} of {training.total} so far."
    return f"{training.job}: all {training.total} steps are done."


def _notices(training: Training) -> Iterator[str]:
    yield from notices(training.folder)
    if training.alarms and not training.stopped:
        yield f"{len(training.alarms)} alarms were raised and none ended the training; they are listed below."
    if not training.looks and training.is_guarded:
        yield "No images of fixed prompts were drawn: set guards.every and guards.prompts."


def _heads(training: Training) -> Iterator[Head]:
    series = training.series
    best = f"best checkpoint: step {training.best}" if training.best is not None else ""
    yield Head("Steps", str(training.done), tuple(note for note in (f"of {training.total}", best) if note))
    if loss := series.get("loss"):
        yield Head("Loss", number(loss[-1][1]), (f"{number(loss[0][1])} at step {loss[0][0]}",))
    for key, title in (("preview_held_out_judge", "Held-out judge"), ("preview_judge", "Training's judge")):
        if points := series.get(key):
            yield Head(title, number(points[-1][1]), _change_notes(training, key))
    for key, title in (("held_out_accuracy", "Held-out accuracy"), ("reward", "Reward")):
        if points := series.get(key):
            n = training.last("held_out_pairs") if key == "held_out_accuracy" else training.last("reward_images")
            yield Head(title, number(points[-1][1]), tuple(_interval_notes(training, key, n)))


def _change_notes(training: Training, key: str) -> tuple[str, ...]:
    change, low, high = (training.last(f"{key}_change{end}") for end in ("", "_low", "_high"))
    n = len(training.looks[-1].prompts) if training.looks else 0
    if change is None or low is None or high is None:
        return (f"n = {n} fixed prompts",)
    interval = f"{100 * training.level:g} % interval {number(low)} to {number(high)}"
    return f"{number(change)} since step 0, {interval}", f"paired over n = {n} prompts"


def _interval_notes(training: Training, key: str, n: float | None) -> Iterator[str]:
    low, high = training.last(f"{key}_low"), training.last(f"{key}_high")
    error = training.last(f"{key}_se")
    if low is not None and high is not None:
        yield f"95 % interval {number(low)} to {number(high)}"
    elif error is not None:
        yield f"standard error {number(error)}"
    if n is not None:
        yield f"n = {n:g}"


def _alarms(training: Training) -> list[dict[str, Any]]:
    """Alarms by kind: when, how often, and what was seen first and last."""
    found: dict[str, list[Any]] = {}
    for alarm in training.alarms:
        found.setdefault(str(alarm.get("alarm", "")), []).append(alarm)
    return [
        {
            "kind": kind.replace("_", " "),
            "times": len(rows),
            "first": rows[0]["step"],
            "last": rows[-1]["step"],
            "texts": list(dict.fromkeys(str(row.get("text", "")) for row in (rows[0], rows[-1]))),
        }
        for kind, rows in found.items()
    ]
