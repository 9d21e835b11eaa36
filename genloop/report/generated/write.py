"""The page of a run of `generate`: a card a prompt with its images, then scores, costs, failures and provenance.

One HTML file that needs nothing else, without a script; its bytes depend on the run folder alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genloop import ledger
from genloop.report.cards import Head, PictureCard, Shot
from genloop.report.files import record_of, write_files
from genloop.report.general.write import failed_units
from genloop.report.generated.checks import check_means, check_words
from genloop.report.generated.rounds import refinements
from genloop.report.page.gallery import ImageHistory, history
from genloop.report.page.pictures import embed
from genloop.report.page.selection import best_and_worst, spread
from genloop.report.runs import generation_record
from genloop.rundir import read_run
from genloop.runs.generated import DRAWING_JOBS, read_generated
from genloop.runs.rows import GeneratedRow
from genloop.stats.markdown import table_head, table_row
from genloop.stats.resampling import cluster_bootstrap

CARDS, SHOTS = 48, 4  # prompts and images of each that are shown
EXTREMES, CLOSEUPS = 4, 6  # images at the top, best and worst; images whose making is shown
HEAD = ("number", "value", "95 % interval", "n")
READING = (
    "Intervals hold the true mean in 95 % of cases. They come from a bootstrap over {noun}, because images of one of "
    "them are alike. The score is that of the images which the judge itself chose, so it is higher than what another "
    "judge would say: the job evaluate gives verdicts that do not depend on it."
)
INPUTS = 6  # of an edited picture: itself, the reference, the mask, two control maps, the focus


@dataclass(frozen=True, slots=True)
class PromptImages:
    """One prompt with the images of it that are there."""

    rows: tuple[GeneratedRow, ...]

    @property
    def tag(self) -> str:
        """Its task; "" without metadata."""
        return self.rows[0].tag or ""

    @property
    def outcome(self) -> str:
        """Nobody judged it."""
        return ""


def is_generated(folder: Path) -> bool:
    """Whether a folder is a run of `generate` or `edit`."""
    found = read_run(folder)
    return found is not None and found["job"] in DRAWING_JOBS


def write_generated(folder: Path, out: Path) -> Path:
    """Write index.html, table.md and table.json -> the path of the page; ValueError while there is no image."""
    prompts: dict[int, list[GeneratedRow]] = {}
    for row in read_generated(folder):
        prompts.setdefault(row.prompt_index, []).append(row)
    if not prompts:
        raise ValueError(f"{folder} has no finished unit yet, there is nothing to report")
    found = [PromptImages(tuple(rows)) for rows in prompts.values()]
    numbers = _numbers(folder, [row for prompt in found for row in prompt.rows])
    table = [*table_head(HEAD), *map(table_row, _rows(numbers))]
    content = _content(folder, found, numbers)
    return write_files(out, "generated.html.j2", content, table="\n".join(table) + "\n", numbers=numbers)


def _content(folder: Path, found: Sequence[PromptImages], numbers: dict[str, float]) -> dict[str, Any]:
    """What the template needs, by name."""
    shown, name = spread(found, CARDS), folder.resolve().name
    left = int(numbers["units"] - numbers["units done"])
    job = (read_run(folder) or {})["job"]
    noun = "requests" if job == "edit" else "prompts"
    made = f"{numbers['images']:.0f} images of {len(found)} {noun}"
    return {
        "title": f"Images of {name}",
        "lead": f"{made}; {left} of {numbers['units']:.0f} units are left." if left else f"{made}, all units are done.",
        "extremes": list(_extremes(folder, [row for prompt in found for row in prompt.rows])),
        "cards": [
            (prompt.rows[0].prompt, _label(prompt), list(_shots(folder, prompt)), _notes(prompt)) for prompt in shown
        ],
        "closeups": list(_closeups(folder, found)),
        "noun": noun,
        "checks": list(check_means([row for prompt in found for row in prompt.rows])),
        "columns": min(SHOTS, max(len(prompt.rows) + _num_inputs(prompt) for prompt in shown)),
        "num_prompts": len(found),
        "refinements": refinements(folder, [row for prompt in found for row in prompt.rows]),
        "heads": list(_heads(numbers, noun)),
        "table": {"title": "Numbers", "head": HEAD, "rows": list(_rows(numbers))},
        "reading": [READING.format(noun=noun)] if "score" in numbers or any("low" in name for name in numbers) else [],
        "failures": list(failed_units(folder)),
        "num_failures": (failed := int(numbers["units failed"])),
        "notices": [f"{failed} {'unit' if failed == 1 else 'units'} failed; the reasons are below."] if failed else [],
        "records": [record_of(folder)],
    }


def _shots(folder: Path, prompt: PromptImages) -> Iterator[Shot]:
    """What the model was given, where pictures were edited, then the images."""
    edit = prompt.rows[0].edit
    for name, path in list(edit.inputs.items() if edit else ())[:INPUTS]:
        yield Shot(embed(folder / path), f"{prompt.rows[0].prompt}: {name}", f"given: {name}")
    for row in prompt.rows[:SHOTS]:
        value = _score(row)
        found = [] if value is None else [f"{row.outcome_question()} {value:.2f}"]
        found += check_words(row.edit) if row.edit else []
        yield Shot(embed(folder / row.image), f"{row.prompt}: sample {row.sample}", ", ".join(found))


def _extremes(folder: Path, rows: Sequence[GeneratedRow]) -> list[tuple[str, list[PictureCard]]]:
    """The images that the judge liked best and least, one a prompt, with their prompts; none where nobody was asked."""
    scored = [(score, row.prompt_index, row) for row in rows if (score := _score(row)) is not None]
    return [(name, [_scored(folder, row) for row in found]) for name, found in best_and_worst(scored, EXTREMES)]


def _scored(folder: Path, row: GeneratedRow) -> PictureCard:
    shot = Shot(embed(folder / row.image), row.prompt, f"{row.outcome_question()} {_score(row):.2f}")
    return PictureCard(row.prompt, (shot,))


def _closeups(folder: Path, found: Sequence[PromptImages]) -> Iterator[tuple[str, ImageHistory]]:
    """(prompt, how its first image came about) of some prompts."""
    for number, prompt in enumerate(spread(found, CLOSEUPS)):
        row = prompt.rows[0]
        made = history(f"path{number}", row.prompt, generation_record(folder, row), folder / row.image, None)
        if made is not None and (made.frames or made.bars or made.trajectories):
            yield row.prompt, made


def _num_inputs(prompt: PromptImages) -> int:
    edit = prompt.rows[0].edit
    return len(edit.inputs) if edit else 0


def _notes(prompt: PromptImages) -> tuple[str, ...]:
    """What was changed about the input of a request."""
    edit = prompt.rows[0].edit
    return edit.notes if edit else ()


def _label(prompt: PromptImages) -> str:
    """The task of a prompt, or the mode of a request."""
    edit = prompt.rows[0].edit
    return edit.mode if edit else prompt.tag


def _score(row: GeneratedRow) -> float | None:
    """The last answer about the chosen candidate; None when nobody was asked, or gave none."""
    best = next((one for one in row.candidates if one.candidate == row.chosen), None)
    return best.p_yes.get(row.outcome_question()) if best else None


def _numbers(folder: Path, rows: Sequence[GeneratedRow]) -> dict[str, float]:
    """Counts, means of costs, and the mean score with its interval over prompts."""
    units = ledger.count(folder, ledger.plan_of(folder).get("units", len(ledger.finished(folder))))
    found: dict[str, float] = {"units": units.total, "units done": units.done, "units failed": units.failed}
    found |= {"prompts": len({row.prompt_index for row in rows}), "images": len(rows)}
    found["candidates an image"] = sum(len(row.candidates) for row in rows) / len(rows)
    for name in ("generator_steps", "judge_calls", "flops"):
        found[f"{name.replace('_', ' ')} an image"] = sum(getattr(row.cost, name) for row in rows) / len(rows)
    for check in check_means(rows):
        name = f"{check.name}, {check.mode}"
        found[f"{name}, images"] = check.values
        if check.mean is not None:
            low, high = check.mean.low, check.mean.high
            found |= {name: check.mean.estimate, f"{name}, low": low, f"{name}, high": high}
    critiques = [one.critique for row in rows for one in row.candidates if one.critique]
    if critiques:
        redrawn = sum(one.redrawn is not None for row in rows for one in row.candidates)
        found |= {"critiques": len(critiques), "failed critiques": sum(one.failed for one in critiques)}
        found["drawings an image after the start"] = redrawn / len(rows)
    scored = [(score, row.prompt_index) for row in rows if (score := _score(row)) is not None]
    if scored:
        values, clusters = zip(*scored)
        mean = cluster_bootstrap(values, clusters, 0, ends=(0.0, 1.0))
        found |= {"scored images": len(scored), "score": mean.estimate, "score low": mean.low, "score high": mean.high}
    return found


def _rows(numbers: dict[str, float]) -> Iterator[list[str]]:
    """The numbers as rows of a table, first those that have an interval."""
    names = [name for name in numbers if not name.endswith((" low", " high"))]
    for name in sorted(names, key=lambda name: not {f"{name} low", f"{name}, low"} & numbers.keys()):
        value = numbers[name]
        part = name if f"{name} low" in numbers else f"{name},"
        low, high = numbers.get(f"{part} low"), numbers.get(f"{part} high")
        span = "" if low is None or high is None else f"{low:.4g} to {high:.4g}"
        n = numbers.get("scored images" if name == "score" else f"{name}, images")
        yield [name, f"{value:.6g}", span, "" if n is None else f"{n:.0f}"]


def _heads(numbers: dict[str, float], noun: str) -> Iterator[Head]:
    yield Head("Images", f"{numbers['images']:.0f}", (f"of {numbers['prompts']:.0f} {noun}",))
    if "score" in numbers:
        interval = f"95 % interval {numbers['score low']:.3f} to {numbers['score high']:.3f}"
        notes = interval, f"over {noun}, n = {numbers['scored images']:.0f} images", "of the images that it chose"
        yield Head("Judge's P(yes)", f"{numbers['score']:.3f}", notes)
    calls = f"{numbers['judge calls an image']:.3g} judge calls"
    flops = f"{numbers['flops an image']:.3g} operations"
    yield Head("Steps an image", f"{numbers['generator steps an image']:.4g}", (calls, flops))
    failed = f"{numbers['units failed']:.0f} failed"
    yield Head("Units done", f"{numbers['units done']:.0f}", (f"of {numbers['units']:.0f}", failed))
