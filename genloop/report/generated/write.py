"""The page of a run of `generate`: a card a prompt with its images, then scores, costs, failures and provenance.

One HTML file that needs nothing else, without a script; its bytes depend on the run folder alone.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genloop import ledger
from genloop.reading import read_object_or_empty
from genloop.report.generated.checks import check_means, check_words
from genloop.report.generated.rounds import refinements
from genloop.report.heads import Head
from genloop.report.page.gallery import ImageHistory, history
from genloop.report.page.pictures import EmbeddedImage, embed
from genloop.report.page.provenance import config_of, facts_of
from genloop.report.page.selection import spread
from genloop.report.rendering import render
from genloop.report.runs import generation_record
from genloop.rundir import read_run, write_atomic
from genloop.runs.generated import DRAWING_JOBS, read_generated
from genloop.runs.rows import GeneratedRow
from genloop.stats.markdown import table_head, table_row
from genloop.stats.resampling import cluster_bootstrap

CARDS, SHOTS, FAILURES = 48, 4, 20  # prompts, images of each, and failed units that are shown
EXTREMES, CLOSEUPS = 4, 6  # images at the top, best and worst; images whose making is shown
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


@dataclass(frozen=True, slots=True)
class ShownImage:
    """One image, and the judge's score of it."""

    picture: EmbeddedImage | None
    alt: str
    score: str


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
    table = [*table_head(("number", "value")), *(table_row((name, f"{value:.6g}")) for name, value in numbers.items())]
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / "table.md", ("\n".join(table) + "\n").encode())
    write_atomic(out / "table.json", (json.dumps(numbers, indent=1, ensure_ascii=False) + "\n").encode())
    write_atomic(out / "index.html", render("generated.html.j2", _content(folder, found, numbers)).encode())
    return out / "index.html"


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
        "failures": list(_failures(folder)),
        "num_failures": int(numbers["units failed"]),
        "record": {"name": name, "job": job, "facts": facts_of(folder)},
        "config": config_of(folder),
    }


def _shots(folder: Path, prompt: PromptImages) -> Iterator[ShownImage]:
    """What the model was given, where pictures were edited, then the images."""
    edit = prompt.rows[0].edit
    for name, path in list(edit.inputs.items() if edit else ())[:INPUTS]:
        yield ShownImage(embed(folder / path), f"{prompt.rows[0].prompt}: {name}", f"given: {name}")
    for row in prompt.rows[:SHOTS]:
        value = _score(row)
        found = [] if value is None else [f"{row.outcome_question()} {value:.2f}"]
        found += check_words(row.edit) if row.edit else []
        yield ShownImage(embed(folder / row.image), f"{row.prompt}: sample {row.sample}", ", ".join(found))


def _extremes(folder: Path, rows: Sequence[GeneratedRow]) -> Iterator[tuple[str, list[tuple[str, ShownImage]]]]:
    """The images that the judge liked best and least, one a prompt, with their prompts; none where nobody was asked."""
    scored = sorted(((score, row) for row in rows if (score := _score(row)) is not None), key=lambda pair: pair[0])
    best = list({row.prompt_index: (score, row) for score, row in scored}.values())  # of a prompt the last: its best
    worst = list({row.prompt_index: (score, row) for score, row in reversed(scored)}.values())
    order = {"Best": sorted(best, key=lambda pair: -pair[0]), "Worst": sorted(worst, key=lambda pair: pair[0])}
    for name, pairs in order.items() if scored else ():
        shown = [(r, f"{r.outcome_question()} {score:.2f}") for score, r in pairs[:EXTREMES]]
        yield name, [(r.prompt, ShownImage(embed(folder / r.image), f"{name}: {r.prompt}", text)) for r, text in shown]


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


def _failures(folder: Path) -> Iterator[tuple[str, str, int]]:
    """Unit, reason and attempts of those that failed and are not done."""
    done = ledger.finished(folder)
    files = [path for path in sorted((folder / "failed").glob("*.json")) if path.stem not in done]
    for path in files[:FAILURES]:
        record = read_object_or_empty(path)
        yield path.stem, str(record.get("reason", "unknown")), int(record.get("attempts", 1))
