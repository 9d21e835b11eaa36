"""GenEval's verdict on one image (Ghosh et al. 2023): detections -> kept objects -> clauses -> correct or the reasons.

Scores and boxes are compared as float32. Where GenEval leaves the order open, ours is fixed: of equal scores the later
detection comes first, of two relations the horizontal one.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from pydantic import Field

from geneval.geometry import iou, relative_position
from genloop.bounds import CountOrNone, Share, Weight
from genloop.config import Settings
from genloop.records import COLORS, Clause, Detection, Prompt, Verdict

Objects = Mapping[str, Sequence[Detection]]  # class -> what was kept of it, most confident first; no empty classes


class VerdictOptions(Settings):
    """GenEval's settings; the defaults are its own."""

    threshold: Share = Field(0.3, description="a detection's score must be above it")
    counting_threshold: Share = Field(0.9, description="the same, for every class of a counting prompt")
    max_objects: CountOrNone = Field(16, description="of each class, the most confident ones")
    max_overlap: Share = Field(1.0, description="intersection over union that drops an object; 1 keeps all")
    position_threshold: Weight = Field(0.1, description="dead zone of a relation, in sums of object sizes")

    def threshold_of(self, prompt: Prompt) -> float:
        """The threshold of all classes in an image of this prompt."""
        return self.counting_threshold if prompt.tag == "counting" else self.threshold


def keep(
    detections: Sequence[Detection], prompt: Prompt, options: VerdictOptions, classes: Sequence[str] = ()
) -> dict[str, list[Detection]]:
    """What counts of the raw detections, by class in the order of `classes` (others after them, as first seen)."""
    threshold = options.threshold_of(prompt)
    by_class: dict[str, list[Detection]] = {name: [] for name in classes}
    for detection in detections:
        by_class.setdefault(detection.class_name, []).append(detection)
    kept = {name: _keep_class(found, threshold, options) for name, found in by_class.items() if found}
    return {name: found for name, found in kept.items() if found}


def color_requests(prompt: Prompt, objects: Objects) -> dict[int, Sequence[Detection]]:
    """{include clause: the objects whose colours it asks for}: the `count` most confident ones, never the rest."""
    asked = {}
    for number, clause in enumerate(prompt.include):
        found = objects.get(clause.class_name, ())[: clause.count]
        if clause.color is not None and len(found) >= clause.count:
            asked[number] = found
    return asked


def judge_objects(
    prompt: Prompt, objects: Objects, named: Mapping[int, Sequence[str]], options: VerdictOptions
) -> Verdict:
    """The verdict from kept objects and the colours of those that `color_requests` lists.

    Every clause in order, one reason for each that fails. Raises IndexError when a position names a clause that is not
    an earlier one, as GenEval does.
    """
    reasons = [reason for reason in clause_reasons(prompt, objects, named, options) if reason]
    return Verdict(not reasons, "\n".join(reasons))


def clause_reasons(
    prompt: Prompt, objects: Objects, named: Mapping[int, Sequence[str]], options: VerdictOptions
) -> list[str]:
    """Of every clause, those of `include` first, why it fails; "" where it holds."""
    groups: list[Sequence[Detection] | None] = []  # what matched each include clause, None where it failed
    reasons = []
    for number, clause in enumerate(prompt.include):
        found = objects.get(clause.class_name, ())[: clause.count]
        reason = _missing(clause, found) or _miscolored(clause, named.get(number, ()))
        if not reason and clause.position is not None:
            reason = _misplaced(clause, found, groups[clause.position[1]], options)
        groups.append(None if reason else found)
        reasons.append(reason)
    for clause in prompt.exclude:
        num_found = len(objects.get(clause.class_name, ()))
        is_surplus = num_found >= clause.count
        reasons.append(f"expected {clause.class_name}<{clause.count}, found {num_found}" if is_surplus else "")
    return reasons


def details(objects: Objects) -> dict[str, list[list[float]]]:
    """Kept objects -> {class: [[x1, y1, x2, y2, score], ...]} in float32 values."""
    return {
        name: [np.array([*found.box, found.score], dtype=np.float32).tolist() for found in kept]
        for name, kept in objects.items()
    }


def _keep_class(found: Sequence[Detection], threshold: float, options: VerdictOptions) -> list[Detection]:
    """Sorted, above the threshold, truncated, then without what overlaps a more confident one too much."""
    scores = np.array([detection.score for detection in found], dtype=np.float32)
    order = np.argsort(scores, kind="stable")[::-1]
    order = order[scores[order] > np.float32(threshold)][: options.max_objects]
    if options.max_overlap == 1:
        return [found[index] for index in order]
    boxes = np.array([found[index].box for index in order], dtype=np.float32).reshape(-1, 4)
    kept = []
    while len(order):
        kept.append(found[order[0]])
        free = iou(boxes[0], boxes[1:]) < np.float32(options.max_overlap)
        order, boxes = order[1:][free], boxes[1:][free]
    return kept


def _missing(clause: Clause, found: Sequence[Detection]) -> str:
    if len(found) >= clause.count:
        return ""
    return f"expected {clause.class_name}>={clause.count}, found {len(found)}"


def _miscolored(clause: Clause, named: Sequence[str]) -> str:
    if clause.color is None:
        return ""
    num_right = named.count(clause.color)
    if num_right >= clause.count:
        return ""
    seen = ", ".join(f"{named.count(color)} {color}" for color in COLORS if color in named)
    return f"expected {clause.color} {clause.class_name}>={clause.count}, found {num_right} {clause.color}; and {seen}"


def _misplaced(
    clause: Clause, found: Sequence[Detection], targets: Sequence[Detection] | None, options: VerdictOptions
) -> str:
    """Every object must stand in the relation to every target; the first pair that does not is the reason."""
    assert clause.position is not None
    relation = clause.position[0]
    if targets is None:
        return f"no target for {clause.class_name} to be {relation}"
    for box in _boxes(found):
        for target in _boxes(targets):
            relations = relative_position(box, target, options.position_threshold)
            if relation not in relations:
                return f"expected {clause.class_name} {relation} target, found {' and '.join(relations)} target"
    return ""


def _boxes(detections: Sequence[Detection]) -> np.ndarray:
    """-> (N, 4) float32"""
    return np.array([detection.box for detection in detections], dtype=np.float32).reshape(-1, 4)
