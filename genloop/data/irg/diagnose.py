"""The rule oracle: measured features and the exposure that an instruction asks for -> what is wrong with an image.

Each diagnosis carries its evidence, so anyone can check it: the value of a feature and the threshold that it passed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

from genloop.data.irg.record import DECIMALS, Diagnosis, Evidence, Features, Intent, Issue, SceneSpec


@dataclass(frozen=True, slots=True)
class Limit:
    """A feature that says an issue is there once it passes `threshold`; at `worst` its severity is 1."""

    issue: Issue
    feature: str
    relation: Literal["below", "above"]
    threshold: float
    worst: float

    def severity(self, value: float) -> float | None:
        """In [0, 1], two decimals; None where the threshold is not passed."""
        depth = (value - self.threshold) / (self.worst - self.threshold)
        is_beyond = value < self.threshold if self.relation == "below" else value > self.threshold
        return round(min(1.0, depth), 2) if is_beyond else None


_EXPOSURE: dict[Intent, tuple[tuple[float, float], tuple[float, float]]] = {  # (threshold, worst) below, above
    "neutral": ((0.34, 0.05), (0.62, 0.98)),
    "dark": ((0.07, 0.01), (0.27, 0.80)),
    "bright": ((0.63, 0.20), (0.90, 1.00)),
}
_CONTRAST: dict[Intent, tuple[float, float]] = {
    "neutral": (0.075, 0.02),
    "dark": (0.022, 0.005),
    "bright": (0.085, 0.01),
}
Standing = Literal["low", "high", "fine", "unclear"]  # of a feature, by the limits of an intent
CHECKED = ("brightness", "clip_hi", "clip_lo", "contrast", "cast", "noise", "detail")  # in the order of texts
CLIPPED = 0.15  # share of clipped pixels beyond which an exposure cannot be repaired
BLURRED = 0.9  # severity of blur beyond which sharpening does not help


@cache
def limits(intent: Intent) -> tuple[Limit, ...]:
    """What is measured against, in the order of diagnoses."""
    below, above = _EXPOSURE[intent]
    return (
        Limit("underexposed", "brightness", "below", *below),
        Limit("overexposed", "brightness", "above", *above),
        Limit("low_contrast", "contrast", "below", *_CONTRAST[intent]),
        Limit("color_cast", "cast", "above", 13.0, 45.0),
        Limit("noise", "noise", "above", 5.0, 25.0),
        Limit("blur", "detail", "below", 0.1, 0.0),
    )


@cache
def limit_of(issue: Issue, intent: Intent) -> Limit | None:
    """The limit that an issue of the pixels is judged by; None for one of content."""
    return next((limit for limit in limits(intent) if limit.issue == issue), None)


def diagnose(features: Features, intent: Intent = "neutral") -> tuple[Diagnosis, ...]:
    """Every issue of the pixels that the features show, in a fixed order; empty for a clean image.

    Under noise nobody can tell how sharp an image is: blur is looked for where there is none.
    """
    found: list[Diagnosis] = []
    for limit in limits(intent):
        if limit.issue == "blur" and any(diagnosis.issue == "noise" for diagnosis in found):
            continue
        value = getattr(features, limit.feature)
        severity = limit.severity(value)
        if severity is None:
            continue
        evidence = [_evidence(limit.feature, value, limit.threshold, limit.relation)]
        clipped = {"overexposed": "clip_hi", "underexposed": "clip_lo"}.get(limit.issue)
        if clipped and getattr(features, clipped) > CLIPPED:
            evidence.append(_evidence(clipped, getattr(features, clipped), CLIPPED, "above"))
        found.append(Diagnosis(issue=limit.issue, severity=severity, evidence=tuple(evidence)))
    return tuple(found)


def standings(features: Features, intent: Intent = "neutral") -> dict[str, Standing]:
    """Each feature that a limit is about -> where it stands; of clipped shares, whether an exposure can be repaired.

    Detail is unclear under noise, where blur is not looked for.
    """
    found: dict[str, Standing] = dict.fromkeys(CHECKED, "fine")
    for limit in limits(intent):
        if limit.severity(getattr(features, limit.feature)) is not None:
            found[limit.feature] = "low" if limit.relation == "below" else "high"
    found |= {name: "high" for name in ("clip_hi", "clip_lo") if getattr(features, name) > CLIPPED}
    return found | ({"detail": "unclear"} if found["noise"] == "high" else {})


def diagnose_content(wanted: SceneSpec, shown: SceneSpec) -> tuple[Diagnosis, ...]:
    """What a scene shows otherwise than it was asked for: number, colours, and the relation of two objects."""
    found = [*_counts(wanted, shown)]
    if not found:
        found += [*_colors(wanted, shown), *_relation(wanted, shown)]
    return tuple(found)


def is_reversible(diagnosis: Diagnosis) -> bool:
    """Whether an operation on pixels can repair it: nothing was clipped, drawn wrong or blurred beyond repair."""
    if diagnosis.issue in ("wrong_count", "wrong_color", "wrong_position"):
        return False
    if diagnosis.issue == "blur":
        return diagnosis.severity <= BLURRED
    return len(diagnosis.evidence) == 1


def relation_of(subject: tuple[float, float], target: tuple[float, float]) -> str:
    """Of two centres (x, y), along the axis on which they lie further apart; y points down."""
    right, down = subject[0] - target[0], subject[1] - target[1]
    if abs(right) >= abs(down):
        return "right of" if right > 0 else "left of"
    return "below" if down > 0 else "above"


def _counts(wanted: SceneSpec, shown: SceneSpec) -> list[Diagnosis]:
    shapes: Sequence[str] = sorted({thing.shape for thing in (*wanted.things, *shown.things)})
    found = []
    for shape in shapes:
        asked, there = (sum(thing.shape == shape for thing in spec.things) for spec in (wanted, shown))
        if asked != there:
            evidence = _evidence(f"count:{shape}", there, asked, "below" if there < asked else "above")
            severity = round(min(1.0, abs(asked - there) / max(asked, 1)), 2)
            found.append(Diagnosis(issue="wrong_count", severity=severity, evidence=(evidence,)))
    return found


def _colors(wanted: SceneSpec, shown: SceneSpec) -> list[Diagnosis]:
    found = []
    for asked, there in zip(wanted.things, shown.things, strict=True):
        if asked.color != there.color:
            evidence = _evidence(f"color:{asked.shape}", there.color, asked.color, "differs")
            found.append(Diagnosis(issue="wrong_color", severity=1.0, evidence=(evidence,)))
    return found


def _relation(wanted: SceneSpec, shown: SceneSpec) -> list[Diagnosis]:
    if wanted.relation is None or len(shown.things) < 2:
        return []
    target, subject = ((thing.x, thing.y) for thing in shown.things[:2])
    there = relation_of(subject, target)
    if there == wanted.relation:
        return []
    evidence = _evidence(f"position:{shown.things[1].shape}", there, wanted.relation, "differs")
    return [Diagnosis(issue="wrong_position", severity=1.0, evidence=(evidence,))]


def _evidence(feature: str, value: float | str, threshold: float | str, relation: str) -> Evidence:
    assert feature in DECIMALS or ":" in feature, feature
    return Evidence.model_validate({"feature": feature, "value": value, "threshold": threshold, "relation": relation})
