"""What each trace is about: clean or faulty, which faults, how severe, and whether the first action is a wrong one."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from genloop.bounds import Share, Weight
from genloop.config import Settings, refusal
from genloop.data.irg.faults import NUM_BINS, inject, kinds_for
from genloop.data.irg.record import INTENTS, Fault, Intent, Issue

Kind = Literal["clean", "single", "double", "content", "irreversible"]
_ORDER: tuple[Issue, ...] = ("blur", "underexposed", "overexposed", "low_contrast", "color_cast", "noise")


class FaultShares(Settings):
    """How traces are shared out; what is left over has one fault."""

    clean: Share = Field(0.22, ge=0.2, description="nothing is wrong, nothing is to be done")
    content: Share = Field(0.18, description="a wrong number, colour or position; drawn scenes only")
    double: Share = Field(0.15, description="two faults at once")
    irreversible: Share = Field(0.08, description="clipped highlights or heavy blur: draw again, do not repair")
    wrong: Share = Field(0.15, description="of the faulty ones: the first action is a wrong one, which is taken back")
    dark: Share = Field(0.12, description="the instruction wants a dark image")
    bright: Share = Field(0.12, description="the instruction wants a bright image")
    bins: tuple[Weight, Weight, Weight] = Field((1.0, 1.0, 1.0), description="how often mild, moderate, severe")

    @model_validator(mode="after")
    def _add_up(self) -> "FaultShares":
        if self.clean + self.content + self.double + self.irreversible > 1:
            raise refusal("clean, content, double and irreversible add up to more than 1")
        if self.dark + self.bright > 1:
            raise refusal("dark and bright add up to more than 1")
        if not sum(self.bins):
            raise refusal("bins: one of them must be above 0")
        return self


@dataclass(frozen=True, slots=True)
class TracePlan:
    """Of one trace; `faults` are those of pixels, in the order in which they happen to an image."""

    kind: Kind
    intent: Intent
    faults: tuple[tuple[Issue, int], ...] = ()
    begins_wrong: bool = False

    def spoil(self, image: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, tuple[Fault, ...]]:
        """(H, W, 3) uint8 -> the image with the faults, and their labels"""
        labels = []
        for kind, level in self.faults:
            image, fault = inject(image, kind, level, rng)
            labels.append(fault)
        return image, tuple(labels)


def draw_plan(rng: np.random.Generator, shares: FaultShares, *, is_scene: bool) -> TracePlan:
    """A plan at random; photographs have no faults of content, and want no special light."""
    places = {"clean": shares.clean, "content": shares.content, "double": shares.double}
    places |= {"irreversible": shares.irreversible}
    left = max(0.0, 1 - sum(places.values()))
    kinds: list[Kind] = ["clean", "content", "double", "irreversible", "single"]
    chances = np.array([*places.values(), left])
    kind = kinds[rng.choice(len(kinds), p=chances / chances.sum())]
    intent_chances = np.array([1 - shares.dark - shares.bright, shares.dark, shares.bright]).clip(0)
    intent = INTENTS[rng.choice(3, p=intent_chances / intent_chances.sum())]
    begins_wrong = bool(rng.random() < shares.wrong) and kind != "clean"
    if not is_scene:
        kind, intent = ("single" if kind == "content" else kind), "neutral"
    return TracePlan(kind, intent, _faults(kind, intent, shares, rng), begins_wrong)


def _faults(kind: Kind, intent: Intent, shares: FaultShares, rng: np.random.Generator) -> tuple[tuple[Issue, int], ...]:
    if kind in ("clean", "content"):
        return ()
    choices = kinds_for(intent)
    if kind == "irreversible":
        beyond = [issue for issue in ("overexposed", "blur") if issue in choices and not _is_dark(issue, intent)]
        return ((beyond[rng.integers(len(beyond))], NUM_BINS - 1),)
    order = rng.permutation(len(choices))
    drawn = [choices[i] for i in order][: 2 if kind == "double" else 1]
    if {"underexposed", "overexposed"} <= set(drawn):  # they undo each other
        drawn[1] = choices[order[2]]
    weights = np.array(shares.bins) / sum(shares.bins)
    return tuple((issue, int(rng.choice(NUM_BINS, p=weights))) for issue in _ORDER if issue in drawn)


def _is_dark(issue: str, intent: Intent) -> bool:
    """A dark image has no highlights that could clip."""
    return issue == "overexposed" and intent == "dark"
