"""Scenes that show something else than was asked for: a wrong number of objects, a wrong colour, a wrong place."""

from collections.abc import Mapping

import numpy as np

from genloop.data.irg.record import Fault, Issue, SceneObject, SceneSpec
from genloop.records import COLORS, Prompt

MAX_THINGS = 4
TASKS: Mapping[Issue, tuple[str, ...]] = {  # GenEval's tasks whose prompts say what each fault of content goes against
    "wrong_count": ("single_object", "two_object", "counting", "colors"),
    "wrong_color": ("colors", "color_attr"),
    "wrong_position": ("position",),
}


def misdraw(prompt: Prompt, spec: SceneSpec, kind: Issue, rng: np.random.Generator) -> tuple[SceneSpec, Fault]:
    """The scene of one of the fault's TASKS with that fault, and its label."""
    make = {"wrong_count": _another_number, "wrong_color": _another_color, "wrong_position": _mirrored}[kind]
    shown = spec.model_copy(update={"things": make(prompt, spec, rng)})
    return shown, Fault(kind=kind, severity=1.0, bin=2, is_reversible=False)


def _another_number(prompt: Prompt, spec: SceneSpec, rng: np.random.Generator) -> tuple[SceneObject, ...]:
    """One object less, or one more where there is room for it."""
    things, last = spec.things, spec.things[-1]
    fewer = len(things) > 1 and (len(things) == MAX_THINGS or rng.random() < 0.5)
    if fewer:
        return things[:-1]
    places = [(x, y) for x in (0.2, 0.5, 0.8) for y in (0.2, 0.5, 0.8)]
    gaps = [min(abs(x - thing.x) + abs(y - thing.y) for thing in things) for x, y in places]
    x, y = places[int(np.argmax(gaps))]
    return (*things, last.model_copy(update={"x": x, "y": y}))


def _another_color(prompt: Prompt, spec: SceneSpec, rng: np.random.Generator) -> tuple[SceneObject, ...]:
    """An object whose colour the prompt names gets one of the other nine."""
    named = [clause.color is not None for clause in prompt.include for _ in range(clause.count)]
    places = np.flatnonzero(named)
    at = int(places[rng.integers(len(places))])
    others = [color for color in COLORS if color != spec.things[at].color]
    changed = spec.things[at].model_copy(update={"color": others[rng.integers(len(others))]})
    return (*spec.things[:at], changed, *spec.things[at + 1 :])


def _mirrored(prompt: Prompt, spec: SceneSpec, rng: np.random.Generator) -> tuple[SceneObject, ...]:
    """The two objects of a relation change places."""
    first, second = spec.things[:2]
    return (
        first.model_copy(update={"x": second.x, "y": second.y, "depth": second.depth}),
        second.model_copy(update={"x": first.x, "y": first.y, "depth": first.depth}),
    )
