"""The canary: before any image is judged, the parts see pictures whose answers are known.

A wrong config, another variant of CLIP, weights that were not loaded or a broken kernel do not crash: they give a low
score. So every detector and colour classifier is shown `canary_pictures` first. Where an answer is recorded for its
kind, options and weights (in `canary.yaml`, or in the file beside the checkpoint that `canary=record` writes), it must
give that answer, within a tolerance that leaves room for GPU against CPU. Without a record it must be plausible:
finite, the same alone as in a batch, red things red, something found where a sign, a ball and a clock are drawn.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from geneval.canary.pictures import color_requests, pictures
from geneval.canary.records import Part, Record, find_record, other_weights
from geneval.judging import detections_for
from geneval.settings import Evaluator
from genloop.protocols import ColorClassifier, Detector
from genloop.records import COLORS, Detection, Wanted
from genloop.rundir import BadInput

FLOOR = 0.05  # lower scores are not looked at
ALONE = 0.01  # how much a score may differ between a picture alone and one of several
DRAWN = {"sign": ("stop sign",), "ball": ("sports ball", "clock")}  # what detectors of everyday objects should see
SEEN = 0.1  # a score that one of those must reach
NUM_RIGHT = 7  # of ten colours, at least
AS_RECORDED, PLAUSIBLE = "as recorded", "plausible, no record"


class CanaryFailed(BadInput):
    """A part does not answer as it should; nothing was judged."""


class Observed(NamedTuple):
    """What a part answered, and (problem, likely cause) of what is `broken` whatever is recorded, and of what is merely
    not plausible: `doubts`.
    """

    seen: dict[str, Any]
    broken: list[tuple[str, str]]
    doubts: list[tuple[str, str]]

    @property
    def problems(self) -> list[tuple[str, str]]:
        """Both."""
        return self.broken + self.doubts


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a part answered: `seen` as plain values, and how that was held against what is known."""

    part: Part
    outcome: str
    seen: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.part.kind, "weights": dict(self.part.weights), "outcome": self.outcome, "seen": self.seen}


def run_canary(
    evaluator: Evaluator,
    parts: Mapping[str, Part],
    *,
    recording: bool = False,
    seen: Callable[[int], None] | None = None,
) -> dict[str, Outcome]:
    """{detector and colors: outcome}; CanaryFailed, one line, for an answer that cannot be right.

    With `recording`, what lies beside a checkpoint is not asked, because it is about to be replaced. `seen` is told how
    many more pictures the detector is done with, and may raise to stop.
    """
    loaded = {"detector": evaluator.detector, "colors": evaluator.colors}
    found = {}
    for name, part in parts.items():
        record = find_record(part, shipped_only=recording)
        if record is None and not recording:
            _check_weights(part)
        if name == "detector":
            observed = observe_objects(evaluator.detector, seen=seen)
        else:
            observed = observe_colors(evaluator.colors)
        answers, problems = observed.seen, observed.problems
        problems += [(line, "what the part says of itself") for line in _own_check(loaded[name])]
        if record is not None:  # a record says more than what is plausible
            cause = _cause(name, answers, record)
            problems = observed.broken + [(text, cause) for text in differences(name, answers, record)]
        if problems:
            what, cause = problems[0]
            place = record.place if record else None
            raise CanaryFailed(
                f"canary: {name} {part.kind} {what}; likely {cause}. Nothing was judged; canary=off goes on anyway"
                + (f", canary=record (another out) takes this for right ({place})" if place else "")
            )
        found[name] = Outcome(part, AS_RECORDED if record else PLAUSIBLE, answers)
    return found


def _check_weights(part: Part) -> None:
    """A record beside the checkpoint binds its weights: others are refused before they are asked anything."""
    if recorded := other_weights(part):
        ours, theirs = (", ".join(digest[:8] for digest in weights.values()) for weights in (part.weights, recorded))
        raise CanaryFailed(
            f"canary: {part.name} {part.kind} has weights {ours}, {part.place} is about {theirs}; likely a checkpoint "
            "that was changed, copied in part, or converted from another file. Nothing was judged; canary=off goes on "
            "anyway, canary=record (another out) takes these for right"
        )


def differences(name: str, seen: Mapping[str, Any], record: Record) -> list[str]:
    """What is not as recorded, the largest difference first; each a clause for a sentence."""
    compare = _object_differences if name == "detector" else _color_differences
    found = [pair for key in record.seen for pair in compare(key, seen.get(key), record.seen[key], record.tolerance)]
    return [text for _, text in sorted(found, key=lambda pair: -pair[0])]


def observe_objects(detector: Detector, *, seen: Callable[[int], None] | None = None) -> Observed:
    """What a detector finds in the pictures; `seen` is told how many more it is done with."""
    shown = pictures()
    wanted = Wanted(FLOOR)
    found = detections_for(detector, list(shown.values()), [wanted] * len(shown), seen=seen)
    answers = dict(zip(shown, found, strict=True))
    first = next(iter(shown))
    (alone,) = detections_for(detector, [shown[first]], [wanted], seen=seen)
    broken, doubts = [], []
    for name, ours in [*answers.items(), (first, alone)]:
        broken += _impossible(name, ours, detector.classes)
    best = {name: _best(ours) for name, ours in answers.items()}
    for _, text in _object_differences(first, _best(alone), best[first], ALONE):
        broken.append((f"answers otherwise when a picture comes alone: {text}", "a broken kernel"))
    drawn = [score for name, kinds in DRAWN.items() for kind in kinds for score in best[name].get(kind, [0.0])[:1]]
    if all(kind in detector.classes for kinds in DRAWN.values() for kind in kinds) and max(drawn) < SEEN:
        doubts.append(
            (
                f"gives a drawn stop sign, ball and clock at most {max(drawn):.3f}",
                "weights that were not loaded, the config of another model, or a broken kernel",
            )
        )
    return Observed(best, broken, doubts)


def _impossible(name: str, found: Sequence[Detection], classes: Sequence[str]) -> list[tuple[str, str]]:
    values = np.array([[*one.box, one.score] for one in found], dtype=np.float64).reshape(-1, 5)
    strange = sorted({one.class_name for one in found}.difference(classes))
    problems = []
    if not np.isfinite(values).all():
        problems.append((f"gives a score or a box of picture {name!r} that is no number", "a broken kernel"))
    elif (values[:, 4] < 0).any() or (values[:, 4] > 1.0001).any():
        problems.append((f"gives a score outside of 0..1 in picture {name!r}", "probabilities that do not sum to 1"))
    if strange:
        problems.append((f"finds {strange[0]!r}, a class that it says it does not know", "another list of classes"))
    return problems


def _best(found: Sequence[Detection]) -> dict[str, list[Any]]:
    """{class: [best score, its box, how many]} of what is above FLOOR."""
    by_class: dict[str, list[Detection]] = {}
    for one in found:
        if one.score > FLOOR:
            by_class.setdefault(one.class_name, []).append(one)
    seen: dict[str, list[Any]] = {}
    for name, ours in sorted(by_class.items()):
        best = max(ours, key=lambda one: one.score)
        seen[name] = [round(float(best.score), 4), [round(float(value), 1) for value in best.box], len(ours)]
    return seen


def _object_differences(
    picture: str, seen: Mapping[str, Any] | None, recorded: Mapping[str, Any], tolerance: float
) -> list[tuple[float, str]]:
    """[(how much, what)] of one picture."""
    found = []
    for name in sorted({*(seen or {}), *recorded}):
        ours, theirs = (seen or {}).get(name), recorded.get(name)
        scores = [max(FLOOR, float(one[0])) if one else FLOOR for one in (ours, theirs)]
        if abs(scores[0] - scores[1]) > tolerance:
            text = f"gives {name!r} in picture {picture!r} {_score(ours)}, recorded {_score(theirs)}"
            found.append((abs(scores[0] - scores[1]), text))
        elif tolerance == 0 and ours != theirs:
            found.append((1.0, f"finds {name!r} in picture {picture!r} as {ours}, recorded {theirs}"))
        elif ours and theirs and min(scores) > 0.3:
            room = 2 + 0.05 * float(np.ptp(theirs[1]))
            if np.abs(np.subtract(ours[1], theirs[1])).max() > room:
                found.append((tolerance, f"puts {name!r} in picture {picture!r} at {ours[1]}, recorded {theirs[1]}"))
    return found


def observe_colors(classifier: ColorClassifier) -> Observed:
    """The scores of the requests as nested lists."""
    asked = color_requests()
    answers = dict(zip(asked, classifier.scores(list(asked.values())), strict=True))
    first = next(iter(asked))
    image, detections = asked[first]
    (alone,) = classifier.scores([(image, detections[:1])])
    broken, doubts = [], []
    for name, scores in answers.items():
        if scores.shape != (len(COLORS), len(COLORS)) or not np.isfinite(scores).all():
            broken.append((f"gives scores of {name!r} that are no numbers", "a broken kernel, or half precision"))
            break
        named = [COLORS[place] for place in scores.argmax(axis=1)]
        right = sum(ours == color for ours, color in zip(named, COLORS))
        if named[0] != "red" or right < NUM_RIGHT:
            what = f"calls {right} of ten {name} by their colours, a red one {named[0]}"
            doubts.append((what, "another CLIP variant, weights that were not loaded, or texts in another order"))
    if not broken and not np.abs(alone[0] - answers[first][0]).max() <= ALONE * float(np.ptp(answers[first])):
        broken.append(("answers otherwise when an object comes alone", "a broken kernel"))
    seen = {name: np.round(scores.astype(np.float64), 3).tolist() for name, scores in answers.items()}
    return Observed(seen, broken, doubts)


def _color_differences(
    request: str, seen: Sequence[Sequence[float]] | None, recorded: Sequence[Sequence[float]], tolerance: float
) -> list[tuple[float, str]]:
    ours, theirs = np.array(seen if seen is not None else []), np.array(recorded)
    if ours.shape != theirs.shape:
        return [(np.inf, f"gives {ours.shape} scores of {request!r}, recorded {theirs.shape}")]
    apart = np.abs(ours - theirs)
    row, column = np.unravel_index(int(apart.argmax()), apart.shape)
    if apart[row, column] <= tolerance:
        return []
    text = f"gives the {COLORS[row]} one of {request} {ours[row, column]:g} for {COLORS[column]}"
    return [(float(apart[row, column]), f"{text}, recorded {theirs[row, column]:g}")]


def _cause(name: str, seen: Mapping[str, Any], record: Record) -> str:
    """The usual reason for such a difference."""
    if name == "colors":
        return "another CLIP variant or activation (QuickGELU), other texts, or a broken kernel"
    best, recorded = (
        max((one[0] for found in what.values() for one in found.values()), default=0.0) for what in (seen, record.seen)
    )
    if best < recorded / 3:
        return "a broken kernel (an operator that was compiled for another GPU), or weights that were not loaded"
    return "another config or preprocessing, a file of another model, or a broken kernel"


def _own_check(part: Any) -> Sequence[str]:
    """What a loaded part finds wrong with itself, if it can tell (`self_check()` -> clauses for a sentence)."""
    check = getattr(part, "self_check", None)
    return check() if check is not None else ()


def _score(found: Sequence[Any] | None) -> str:
    return f"{found[0]:.3f}" if found else f"less than {FLOOR}"
