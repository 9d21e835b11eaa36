"""The page about one run's failures: what fails how often, which prompts, and what the detector saw on the images.

Like the report it is one file without scripts, and its bytes depend on the run folder alone.
"""

from collections.abc import Sequence
from pathlib import Path

from genloop.report.failures import tables
from genloop.report.failures.objects import DetectedImage, shots
from genloop.report.failures.reasons import KINDS
from genloop.report.rendering import render
from genloop.report.runs import ReportedRun
from genloop.rundir import write_atomic
from genloop.stats.comparison.compare import nearness_of
from genloop.stats.nearness import WITHIN

NUM_WORST = 24


def page_name(run: ReportedRun) -> str:
    """failures-a.html for the first run of a report."""
    return f"failures-{run.letter.lower()}.html"


def write_failures(run: ReportedRun, out: Path, *, num_shots: int = 48) -> Path:
    """Write the page of one run into the folder `out` -> its path."""
    shown = shots(run, num_shots)
    worst, hopeless = tables.worst(run, NUM_WORST)
    kinds = tables.by_kind(run)
    outcomes = [name for name in ("right", *KINDS) if any(shot.outcome == name for shot in shown)]
    content = {
        "title": f"Failures of {run.name}",
        "lead": _lead(run),
        "home": "index.html",
        "reading": [READING],
        "run": run,
        "kinds": kinds,
        "kinds_told": tables.kinds_told(kinds),
        "matrices": [
            ("colors", "Colours", "wanted", COLORS_LEAD, tables.colors(run)),
            ("relations", "Relations", "wanted", RELATIONS_LEAD, tables.relations(run)),
        ],
        "classes": tables.classes(run),
        "worst": worst,
        "hopeless": hopeless,
        "shots": shown,
        "objects_lead": _objects_lead(run, shown),
        "tags": list(dict.fromkeys(shot.tag for shot in shown)),
        "outcomes": outcomes,
        "present": {(shot.tag, shot.outcome) for shot in shown},
    }
    path = out / page_name(run)
    write_atomic(path, render("failures.html.j2", content).encode())
    return path


def _lead(run: ReportedRun) -> str:
    wrong, near = sum(not image.correct for image in run.images), nearness_of(run.evaluation.images)
    close = f" Decisions within {WITHIN} of a threshold, which a rounding could turn: {near}." if near else ""
    return f"{wrong} of {len(run.images)} images do not show what their prompt asks for.{close}"


def _objects_lead(run: ReportedRun, shown: Sequence[DetectedImage]) -> str:
    masks = " Masks are outlined and lightly tinted." if any(seen.outline for s in shown for seen in s.objects) else ""
    return (
        "What was kept of the detections, with scores. Numbered boxes are of classes that the prompt names; dashed "
        "ones of others. Where a colour was asked for: the one that was named, and by how much it is ahead of the "
        f"next. Areas are those of the masks, in percent of the image.{masks} {len(shown)} of {len(run.images)} "
        "images, spread over tasks and kinds of failure: a sample for the eye, not a measure."
    )


READING = (
    "Counts are images of a task that failed in a way, and their share of the task's images with its 95 % interval "
    "(Wilson's, prompts are the clusters). An image that failed in two ways counts in both columns. Scores and "
    "differences are on the page of the run, under the mark at the top left."
)
COLORS_LEAD = (
    "Objects whose colour a prompt asked for, by the colour that was named. Every object of a clause counts, of right "
    "and wrong images; a clause without its objects has no colour to name."
)
RELATIONS_LEAD = (
    "Images of prompts that ask for a relation, by what was found. An object that stands in two relations counts in "
    "both columns; a right image counts in the column that was wanted."
)
