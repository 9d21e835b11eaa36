"""Images and prompts -> verdicts, with everything that they rest on: one detector call and one colour call a batch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from geneval.settings import Evaluator
from geneval.verdict import Objects, VerdictOptions, color_requests, judge_objects, keep
from genloop.protocols import Detector
from genloop.records import Detection, Prompt, Verdict, Wanted, color_names
from genloop.rundir import RunFailed

NEAR = 0.05  # detections so far below a threshold still count as close to it


@dataclass(frozen=True, slots=True)
class NamedColors:
    """The colours that one clause asked for, object by object; a margin is the highest score minus the next."""

    clause: int
    named: tuple[str, ...]
    margins: tuple[float, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """The verdict on an image and what it rests on.

    `distance` is that of the nearest score of a class of the prompt to the threshold; None when none is above it or at
    most NEAR below.
    """

    verdict: Verdict
    objects: Objects
    colors: tuple[NamedColors, ...]
    distance: float | None


def judge_images(
    images: Sequence[np.ndarray],
    prompts: Sequence[Prompt],
    evaluator: Evaluator,
    *,
    masks: bool = False,
    seen: Callable[[int], None] | None = None,
) -> list[Judged]:
    """One prompt per image (H, W, 3) uint8 RGB, sizes may differ -> their verdicts; none depends on the others.

    With `masks` the objects of every class of a prompt come with theirs, also where no colour is asked for. `seen` is
    told how many more images the detector is done with, and may raise to stop.
    """
    detector, classifier, options = evaluator
    asked_for = [wanted(prompt, options, masks=masks) for prompt in prompts]
    found = detections_for(detector, images, asked_for, seen=seen)
    kept = [keep(ours, prompt, options, detector.classes) for ours, prompt in zip(found, prompts, strict=True)]
    asked = [color_requests(prompt, objects) for prompt, objects in zip(prompts, kept)]
    requests = [(image, objects) for image, ours in zip(images, asked) for objects in ours.values()]
    scores = iter(classifier.scores(requests) if requests else ())
    judged = []
    for prompt, detections, objects, ours in zip(prompts, found, kept, asked):
        colors = tuple(_named(clause, next(scores)) for clause in ours)
        verdict = judge_objects(prompt, objects, {part.clause: part.named for part in colors}, options)
        judged.append(Judged(verdict, objects, colors, _distance(prompt, detections, options)))
    return judged


def detections_for(
    detector: Detector,
    images: Sequence[np.ndarray],
    asked: Sequence[Wanted],
    *,
    seen: Callable[[int], None] | None = None,
) -> list[list[Detection]]:
    """What the detector finds; one that can leave out what nobody looks at does.

    One that says `one_by_one`, because it takes seconds an image and gains nothing from several, gets them so.
    """
    select = getattr(detector, "detect_for", None)
    step = 1 if getattr(detector, "one_by_one", False) else max(1, len(images))
    found: list[list[Detection]] = []
    for start in range(0, len(images), step):
        part, theirs = images[start : start + step], asked[start : start + step]
        found += select(part, theirs) if select else detector.detect(part)
        if seen is not None:
            seen(len(part))
    return found


def wanted(prompt: Prompt, options: VerdictOptions, *, masks: bool = False) -> Wanted:
    """What a verdict looks at: scores from a little below the threshold on, masks where a colour is asked for.

    With `masks` those of all classes of the prompt.
    """
    colored = frozenset(clause.class_name for clause in prompt.include if clause.color is not None)
    return Wanted(options.threshold_of(prompt) - NEAR, classes_of(prompt) if masks else colored)


def classes_of(prompt: Prompt) -> frozenset[str]:
    """All classes that a prompt names, also those that it excludes."""
    return frozenset(clause.class_name for clause in (*prompt.include, *prompt.exclude))


def no_numbers(what: str) -> RunFailed:
    """What a part fails with whose answers are NaN or infinite: taken for answers they would find nothing, or red."""
    return RunFailed(f"{what} are no numbers; likely half precision, a broken kernel or damaged weights")


def _named(clause: int, scores: np.ndarray) -> NamedColors:
    """From (N, 10) scores."""
    if not np.isfinite(scores).all():
        raise no_numbers("scores of colours")
    first, second = np.sort(scores, axis=1)[:, :-3:-1].T
    return NamedColors(clause, tuple(color_names(scores)), tuple((first - second).tolist()))


def _distance(prompt: Prompt, detections: Sequence[Detection], options: VerdictOptions) -> float | None:
    asked = classes_of(prompt)
    threshold = np.float32(options.threshold_of(prompt))
    scores = np.array([found.score for found in detections if found.class_name in asked], dtype=np.float32)
    scores = scores[scores > threshold - np.float32(NEAR)]
    return float(np.abs(scores - threshold).min()) if len(scores) else None
