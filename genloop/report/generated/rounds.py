"""Guided generation on a page: the rounds of an image side by side, measured features as bars, reasoning beside."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genloop.data.irg.diagnose import limits
from genloop.data.irg.quality import intent_of
from genloop.report.page.pictures import Sheet, embed_sheet
from genloop.runs.rows import CritiqueRow, GeneratedRow, RecordedCandidate

IMAGES = 8  # that are shown with their rounds
SHOWN = (("brightness", 1.0), ("contrast", 0.35), ("saturation", 1.0), ("cast", 60.0), ("noise", 30.0))
"""Features, each with the value of a full bar."""


@dataclass(frozen=True, slots=True)
class FeatureBar:
    """A feature: share of the full bar, its value, the share at which a limit lies, and whether it is passed."""

    name: str
    share: float
    text: str
    marks: tuple[float, ...]
    is_bad: bool


@dataclass(frozen=True, slots=True)
class RoundShown:
    """One candidate: its picture's corner in the sheet, score, how it was drawn, what the critic said."""

    title: str
    corner: tuple[int, int] | None
    score: str
    drawn: tuple[str, ...]
    is_kept: bool
    bars: tuple[FeatureBar, ...]
    issues: tuple[str, ...]
    reasoning: str
    refined: str
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Refinement:
    """The rounds of one image."""

    name: str
    prompt: str
    sheet: Sheet | None
    rounds: tuple[RoundShown, ...]


def refinements(folder: Path, rows: Sequence[GeneratedRow]) -> list[Refinement]:
    """Of the first images that a critic looked at; none for runs without one."""
    looked = [row for row in rows if any(one.critique for one in row.candidates)]
    return [_refinement(folder, row, number) for number, row in enumerate(looked[:IMAGES])]


def _refinement(folder: Path, row: GeneratedRow, number: int) -> Refinement:
    steps = sorted({answer.step for one in row.candidates for answer in one.trace})
    sheet = None
    if row.previews is not None:
        sheet = embed_sheet(folder / row.previews, len(row.candidates), len(steps), folder / row.image)
    shown = [one for one in row.candidates if one.redrawn or one.critique]
    rounds = [_round(row, one, place, steps, sheet) for place, one in enumerate(shown)]
    return Refinement(f"refined{number}", row.prompt, sheet, tuple(rounds))


def _round(
    row: GeneratedRow, one: RecordedCandidate, place: int, steps: Sequence[int], sheet: Sheet | None
) -> RoundShown:
    score, before = _score(one), None if one.parent is None else _score(_of(row, one.parent))
    corner = None
    if sheet and one.trace:
        at = row.candidates.index(one)
        corner = steps.index(one.trace[-1].step) * sheet.width, at * sheet.height
    is_kept = before is None or (score is not None and score > before)
    said = one.critique
    return RoundShown(
        title="start" if one.redrawn is None else f"round {place}",
        corner=corner,
        score="not judged" if score is None else f"score {score:.3f}",
        drawn=tuple(_drawn(one)),
        is_kept=is_kept,
        bars=tuple(_bars(said, row.prompt)) if said else (),
        issues=tuple(_issues(said)) if said else (),
        reasoning=said.reasoning if said else "",
        refined=said.prompt if said and said.diagnosis else "",
        problems=said.problems if said else (),
    )


def _drawn(one: RecordedCandidate) -> Iterator[str]:
    if one.redrawn is not None:
        yield f"from candidate {one.parent}, strength {one.redrawn.strength:.2f}, guidance x {one.redrawn.guidance:.2f}"


def _bars(said: CritiqueRow, prompt: str) -> Iterator[FeatureBar]:
    """The features that the critic had, with the limits of what the prompt wants."""
    for name, full in SHOWN:
        if name not in said.features:  # of a critic that measures something else
            continue
        value = said.features[name]
        own = [limit for limit in limits(intent_of(prompt)) if limit.feature == name]
        marks = tuple(round(100 * limit.threshold / full, 1) for limit in own)
        is_bad = any(limit.severity(value) is not None for limit in own)
        yield FeatureBar(name, round(100 * min(1.0, value / full), 1), f"{value:.3g}", marks, is_bad)


def _issues(said: CritiqueRow) -> Iterator[str]:
    for one in said.diagnosis:
        severity: Any = one.get("severity", 0.0)
        yield f"{str(one.get('issue', '')).replace('_', ' ')} {severity:.2f}"


def _of(row: GeneratedRow, candidate: int) -> RecordedCandidate:
    return next(one for one in row.candidates if one.candidate == candidate)


def _score(one: RecordedCandidate) -> float | None:
    return one.p_yes.get("outcome")
