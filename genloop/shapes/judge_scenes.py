"""Pairs of drawn scenes whose sentences differ in one slot, to teach a judge of the embedded world to read and look.

Contrast i is a function of (seed, i): a training sentence A, the same sentence with one slot changed (an object, a
colour, the number, the relation, two slots swapped, or an object left out) A', and a scene drawn for each. Asking both
sentences about both scenes makes every sentence and every scene right about as often as wrong, so neither alone gives
the answer away. A' is only asked where it may be: a sentence that training names, on the same side of the split as A.
So no held-out combination is ever named, while scenes do show them.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from genloop.data.prompts import caption
from genloop.records import COLORS, RELATIONS, TAGS, Clause, Detection, Prompt
from genloop.shapes.prompts import NUMBERS, pool
from genloop.shapes.render import BACKGROUND
from genloop.shapes.scenes import CELL, GRID, MAX_OBJECTS, SHAPES, SPAN, Scene, Thing, scene_for

OTHER = "other"  # something that is no object: what a cell of a generated image may show
SHAPE_NAMES, COLOR_NAMES = (*SHAPES, OTHER), (*COLORS, OTHER)  # what the planes of `cells` count through, from 1
DISTRACTED = 0.25  # share of scenes that show one more object, of a shape that neither sentence names
_TRIES = 20  # at a place for it


@dataclass(frozen=True, slots=True)
class Contrast:
    """Sentences that may be asked (A, and A' where it may be) and the scenes drawn for A and for A'."""

    prompts: tuple[Prompt, ...]
    scenes: tuple[Scene, Scene]


def contrast(seed: int, index: int, split_of: Callable[[str], str]) -> Contrast:
    """Contrast number `index`; `split_of` maps a sentence to its side."""
    rng = np.random.default_rng([seed, index, 2])  # keyed apart from the training scenes
    candidates = pool("train", TAGS[rng.integers(len(TAGS))])
    prompt = candidates[rng.integers(len(candidates))]
    changes = list(changed(prompt))
    other = changes[rng.integers(len(changes))]
    named = {clause.class_name for clause in (*prompt.include, *other.include)}
    scenes = tuple(_distract(scene_for(p, rng), named, rng) for p in (prompt, other))
    may_ask = other.text in _trained() and split_of(other.text) == split_of(prompt.text)
    return Contrast((prompt, other) if may_ask else (prompt,), (scenes[0], scenes[1]))


def changed(prompt: Prompt) -> Iterator[Prompt]:
    """Every sentence of this world that differs from `prompt` in one slot, has two slots swapped, or one object less.

    Sentences that say the same in another order are left out.
    """
    include = prompt.include
    for place, clause in enumerate(include):
        for new in _changed_clause(clause, {c.class_name for c in include}, prompt.tag):
            yield _sentence(prompt.tag, (*include[:place], new, *include[place + 1 :]))
    if prompt.tag == "position":
        first, second = include
        yield _sentence("position", (replace(first, class_name=second.class_name), _renamed(second, first.class_name)))
    if prompt.tag == "color_attr":
        first, second = include
        yield _sentence("color_attr", (replace(first, color=second.color), replace(second, color=first.color)))
    if prompt.tag in ("two_object", "color_attr"):
        for clause in include:
            yield _sentence("colors" if clause.color else "single_object", (clause,))


def seen_cells(image: np.ndarray, detections: Sequence[Detection], colors: Sequence[str]) -> np.ndarray:
    """What the exact detector finds in each cell of an image (H, W, 3) uint8: (GRID, GRID, 2) uint8.

    0 for background, else 1 + index of the shape in SHAPE_NAMES, of the colour in COLOR_NAMES; OTHER where there is
    something else.

    A cell is background when all its pixels are; an object's cells are the SPAN x SPAN ones from its box's corner on.
    """
    grid = np.empty((GRID, GRID, 2), dtype=np.uint8)
    grid[:] = 1 + SHAPE_NAMES.index(OTHER), 1 + COLOR_NAMES.index(OTHER)
    is_background = (image == BACKGROUND).all(axis=2).reshape(GRID, CELL, GRID, CELL).all(axis=(1, 3))
    grid[is_background] = 0
    for detection, color in zip(detections, colors, strict=True):
        row, column = (int(corner) // CELL for corner in (detection.box[1], detection.box[0]))
        place = grid[row : row + SPAN, column : column + SPAN]
        place[:] = 1 + SHAPES.index(detection.class_name), 1 + COLORS.index(color)
    return grid


def _changed_clause(clause: Clause, named: set[str], tag: str | None) -> Iterator[Clause]:
    yield from (_renamed(clause, shape) for shape in SHAPES if shape not in named)
    if clause.color is not None:
        yield from (replace(clause, color=color) for color in COLORS if color != clause.color)
    if tag == "counting":
        yield from (replace(clause, count=number) for number in NUMBERS if number != clause.count)
    if clause.position is not None:
        _, target = clause.position
        yield from (replace(clause, position=(r, target)) for r in RELATIONS if r != clause.position[0])


def _renamed(clause: Clause, name: str) -> Clause:
    return replace(clause, class_name=name)


def _sentence(tag: str | None, include: tuple[Clause, ...]) -> Prompt:
    assert tag is not None
    exclude = (replace(include[0], count=include[0].count + 1),) if tag == "counting" else ()
    return Prompt(0, caption(tag, include), tag, include, exclude)


@cache
def _trained() -> frozenset[str]:
    return frozenset(prompt.text for tag in TAGS for prompt in pool("train", tag))


def _distract(scene: Scene, named: set[str], rng: np.random.Generator) -> Scene:
    """Sometimes one more object, where there is room."""
    if rng.random() >= DISTRACTED or len(scene) == MAX_OBJECTS:
        return scene
    others = [shape for shape in SHAPES if shape not in named]
    shape, color = others[rng.integers(len(others))], COLORS[rng.integers(len(COLORS))]
    for row, column in rng.integers(GRID - SPAN + 1, size=(_TRIES, 2)):
        if all(abs(row - thing.row) >= SPAN or abs(column - thing.column) >= SPAN for thing in scene):
            return (*scene, Thing(shape, color, int(row), int(column)))
    return scene
