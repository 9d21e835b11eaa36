"""The sentences of the refinement corpus: templates by slot, written from numbers and read back to them.

A template is one sentence with {fields}. Each slot has at least five templates of which sentences in train and val are
made, and two that come up in test alone, so that what is measured there is no recall of templates. `parse` turns a
sentence into its slot, template and fields: numbers are masked first, so that a sentence with other numbers is looked
up, not matched again.
"""

import re
import string
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import NamedTuple

import numpy as np

from genloop.data.irg.record import DECIMALS, ISSUES, OPS, Issue, Op

NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?![\w])")
_MASK = "#"
_SENTENCE = re.compile(r"(?<=[.!?])\s+")
FEATURES = {  # feature -> its name in texts; last those that limits are about, in the order in which answers check them
    "p1": "black point",
    "p99": "white point",
    "saturation": "saturation",
    "cast_a": "green-red shift",
    "cast_b": "blue-yellow shift",
    "sharpness": "sharpness",
    "clip_similarity": "CLIP similarity",
    "brightness": "brightness",
    "clip_hi": "share of clipped highlights",
    "clip_lo": "share of clipped shadows",
    "contrast": "contrast",
    "cast": "colour cast",
    "noise": "noise level",
    "detail": "share of detail",
}
PRINTED = {name: min(places, 3) if places > 2 else 1 for name, places in DECIMALS.items()}  # decimals in texts
ISSUE_NAMES: dict[Issue, str] = {
    "underexposed": "underexposure",
    "overexposed": "overexposure",
    "low_contrast": "low contrast",
    "color_cast": "a cast of colour",
    "noise": "noise",
    "blur": "blur",
    "wrong_count": "a wrong count",
    "wrong_color": "a wrong colour",
    "wrong_position": "a wrong position",
}
ISSUES_BY_NAME = {name: issue for issue, name in ISSUE_NAMES.items()}
OP_NAMES: dict[Op, str] = {
    "gamma": "a gamma curve",
    "exposure": "an exposure change",
    "stretch": "a contrast stretch",
    "grey_world": "a grey-world balance",
    "denoise": "denoising",
    "unsharp": "an unsharp mask",
    "regenerate": "generating the image again",
}
ASPECTS = {"count": "number", "color": "colour", "position": "position"}  # of the evidence of an issue of content


@dataclass(frozen=True, slots=True)
class Slot:
    """The templates of one kind of sentence: of train and val, and of test alone."""

    train: tuple[str, ...]
    held_out: tuple[str, ...]

    def templates(self, split: str) -> tuple[tuple[int, str], ...]:
        """(number, template) of a split; held-out ones have numbers above the others."""
        numbered = tuple(enumerate(self.train + self.held_out))
        return numbered[len(self.train) :] if split == "test" else numbered[: len(self.train)]


SLOTS = {
    "composition": Slot(
        (
            "The picture shows {objects}.",
            "I see {objects}.",
            "In view there is {objects}.",
            "The composition consists of {objects}.",
            "What is depicted is {objects}.",
        ),
        ("The frame contains {objects}.", "Looking at the scene, I find {objects}."),
    ),
    "lighting": Slot(
        (
            "Light falls from {direction} with strength {strength} and exposure {exposure}.",
            "The light comes from {direction}, its strength is {strength} and the exposure {exposure}.",
            "Lit from {direction} at strength {strength}, the scene has an exposure of {exposure}.",
            "A light from {direction} of strength {strength} sets an exposure of {exposure}.",
            "From {direction} comes light of strength {strength}, for an exposure of {exposure}.",
        ),
        (
            "The source of light is {direction} of the scene, strength {strength}, exposure {exposure}.",
            "Shading tells of light from {direction} (strength {strength}, exposure {exposure}).",
        ),
    ),
    "observation": Slot(
        (
            "The measurements read {quotes}.",
            "I measure {quotes}.",
            "On its pixels the image has {quotes}.",
            "The numbers to look at are {quotes}.",
            "Measured values are {quotes}.",
        ),
        ("The readings give {quotes}.", "By the instruments there is {quotes}."),
    ),
    "standing": Slot(
        (
            "By the limits {standings}.",
            "Against their limits: {standings}.",
            "The limits say {standings}.",
            "Compared with the limits that is {standings}.",
            "Judged by limits, {standings}.",
        ),
        ("Going by what is allowed, {standings}.", "Next to the limits: {standings}."),
    ),
    "finding": Slot(
        (
            "The {feature} is {value}, {side} the limit of {threshold}: {issue} of severity {severity}.",
            "With a {feature} of {value}, {side} {threshold}, the image suffers from {issue} of severity {severity}.",
            "A {feature} of {value} lies {side} {threshold}, which means {issue} of severity {severity}.",
            "The value {value} of the {feature} is {side} {threshold}; that is {issue} of severity {severity}.",
            "I diagnose {issue} of severity {severity}, because the {feature} of {value} is {side} {threshold}.",
        ),
        (
            "At {value} the {feature} is {side} its limit {threshold}, a sign of {issue} of severity {severity}.",
            "There is {issue} of severity {severity}: the {feature} is {side} {threshold}, namely {value}.",
        ),
    ),
    "support": Slot(
        (
            "The {feature} of {value} is {side} {threshold} too.",
            "Also, the {feature} is {side} {threshold} at {value}.",
            "This agrees with a {feature} of {value}, {side} {threshold}.",
            "In addition the {feature} reads {value}, {side} {threshold}.",
            "Besides, a {feature} of {value} is {side} {threshold}.",
        ),
        (
            "Likewise the {feature}, {value}, is {side} {threshold}.",
            "So does a {feature} of {value} {side} {threshold}.",
        ),
    ),
    "mismatch": Slot(
        (
            "The {aspect} of the {shape} is {found} and not {wanted}: {issue} of severity {severity}.",
            "I diagnose {issue} of severity {severity}, as the {aspect} of the {shape} is {found}, not {wanted}.",
            "Asked for was {wanted} as the {aspect} of the {shape}, found is {found}: {issue} of severity {severity}.",
            "The {shape} has the {aspect} {found} where {wanted} was asked for, {issue} of severity {severity}.",
            "The {aspect} {found} of the {shape} should be {wanted}; that is {issue} of severity {severity}.",
        ),
        (
            "There is {issue} of severity {severity}: {found} instead of {wanted} is the {aspect} of the {shape}.",
            "As the {aspect} of the {shape} I find {found} for {wanted}, hence {issue} of severity {severity}.",
        ),
    ),
    "clean": Slot(
        (
            "Nothing needs to be changed.",
            "No issue is found.",
            "All of this is within its limits, so the image stays as it is.",
            "The image needs no correction.",
            "There is nothing to repair.",
        ),
        ("I would leave the image alone.", "Every value is in range, and no action follows."),
    ),
    "plan": Slot(
        (
            "Apply {action}.",
            "The remedy is {action}.",
            "I suggest {action}.",
            "The next step is {action}.",
            "To correct this, use {action}.",
        ),
        ("This calls for {action}.", "A way out is {action}."),
    ),
    "kept": Slot(
        (
            "The {feature} went from {before} to {after}, and the change is kept.",
            "After the last step the {feature} is {after} instead of {before}, which is an improvement.",
            "The last change moved the {feature} from {before} to {after} and stays.",
            "From {before}, the {feature} has come to {after}; the change is accepted.",
            "The {feature} improved from {before} to {after}.",
        ),
        (
            "The {feature}, {before} before, is {after} now, so the step is kept.",
            "It helped: the {feature} came from {before} to {after}.",
        ),
    ),
    "undone": Slot(
        (
            "The {feature} went from {before} to {after}, and the change is taken back.",
            "After the last step the {feature} was {after} instead of {before}, which is worse, so it is undone.",
            "The last change moved the {feature} from {before} to {after} and does not stay.",
            "From {before}, the {feature} had come to {after}; the change is rejected.",
            "The {feature} got worse, from {before} to {after}, and the image is as before.",
        ),
        (
            "The {feature}, {before} before, was {after} after the step, which is not kept.",
            "It did not help: the {feature} came from {before} to {after}, so I go back.",
        ),
    ),
    "request": Slot(
        (
            "Diagnose this image.",
            "What is wrong with this image, and what should be done?",
            "Check the image against its instruction.",
            "Look at the image and its measurements.",
            "Tell whether the image needs a correction.",
        ),
        ("Give a diagnosis and the next action.", "How can this image be improved?"),
    ),
    "prompt": Slot(
        (
            "{instruction}, {edits}",
            "{instruction}; {edits}",
            "{instruction}, drawn anew: {edits}",
            "{instruction}, this time {edits}",
            "{edits}: {instruction}",
        ),
        ("{instruction} ({edits})", "{instruction} - {edits}"),
    ),
}
_NUMERIC = {"value", "threshold", "severity", "before", "after", "strength", "exposure"}


class Parsed(NamedTuple):
    """A sentence that a template made: which one, and the text of each field."""

    slot: str
    number: int  # of the template
    fields: Mapping[str, str]

    @property
    def template(self) -> str:
        """ "finding.3" """
        return f"{self.slot}.{self.number}"


def choose(slot: str, random: np.random.Generator, split: str) -> str:
    """One of the templates that a split may use."""
    templates = SLOTS[slot].templates(split)
    return templates[int(random.integers(len(templates)))][1]


@cache
def is_held_out(template: str) -> bool:
    """Whether "SLOT.NUMBER" is for test alone."""
    slot, _, number = template.partition(".")
    return int(number) >= len(SLOTS[slot].train)


def sentences(text: str) -> list[str]:
    """A paragraph cut behind the dots that a space follows."""
    return [part for part in _SENTENCE.split(text.strip()) if part]


def parse(sentence: str) -> Parsed | None:
    """What made this sentence; None when none of the templates did."""
    found = None if _MASK in sentence else _parse_masked(NUMBER.sub(_MASK, sentence))
    if found is None:
        return None
    slot, number, masked = found
    numbers = iter(NUMBER.findall(sentence))
    fields = {}
    for name, text in masked:
        if text == _MASK:
            fields[name] = next(numbers)
        else:
            fields[name] = re.sub(_MASK, lambda _: next(numbers), text) if _MASK in text else text
    return Parsed(slot, number, fields)


@lru_cache(1 << 16)
def _parse_masked(sentence: str) -> tuple[str, int, tuple[tuple[str, str], ...]] | None:
    """Slot, number and fields in the order of the sentence, numbers as #."""
    for slot, number, pattern in _patterns():
        if match := pattern.fullmatch(sentence):
            spans = sorted((match.span(name), name) for name in match.groupdict())
            return slot, number, tuple((name, match[name]) for _, name in spans)
    return None


@cache
def _patterns() -> list[tuple[str, int, re.Pattern[str]]]:
    return [
        (slot, number, re.compile("".join(map(_piece, string.Formatter().parse(template)))))
        for slot, templates in SLOTS.items()
        if slot != "prompt"
        for number, template in enumerate(templates.train + templates.held_out)
    ]


def _piece(part: tuple[str, str | None, str | None, str | None]) -> str:
    literal, name = re.escape(part[0]), part[1]
    if name is None:
        return literal
    known = {"feature": FEATURES.values(), "issue": ISSUE_NAMES.values(), "aspect": ASPECTS.values()}
    if name in _NUMERIC:
        pattern = _MASK
    elif name == "side":
        pattern = "below|above"
    else:
        pattern = "|".join(map(re.escape, known[name])) if name in known else ".+?"
    return f"{literal}(?P<{name}>{pattern})"


assert set(ISSUE_NAMES) == set(ISSUES) and set(OP_NAMES) == set(OPS)
assert set(FEATURES) == set(DECIMALS)
