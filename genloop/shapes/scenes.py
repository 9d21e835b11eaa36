"""Scenes of the embedded world: which shape, of which colour, in which cell; drawn at random so that a prompt is true.

A scene holds at most four objects on a 6 x 6 grid of cells; an object covers 2 x 2 cells and no two share a cell.
Everything is a function of its random generator: `scene_for(prompt, rng)`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from genloop.records import COLORS, RELATIONS, Clause, Prompt

SHAPES = ("circle", "square", "triangle", "star", "cross", "ring", "heart", "diamond", "moon", "arrow")
GRID = 6  # cells along a side
CELL = 4  # pixels along a side of a cell
SPAN = 2  # cells along a side of an object
MAX_OBJECTS = 4

Cell = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Thing:
    """One object: a shape of a colour whose top-left cell is (row, column)."""

    shape: str
    color: str
    row: int
    column: int


Scene = tuple[Thing, ...]


def scene_for(prompt: Prompt, rng: np.random.Generator) -> Scene:
    """A scene that shows what the prompt names and nothing else; what the prompt leaves open is uniform.

    Colours that are not named are drawn from all ten, so combinations that no prompt names do occur in images.
    A position is drawn among the placements where the named relation is clear-cut.
    """
    wanted = [clause for clause in prompt.include for _ in range(clause.count)]
    if not 1 <= len(wanted) <= MAX_OBJECTS:
        raise ValueError(f"a scene holds 1 to {MAX_OBJECTS} objects, the prompt '{prompt.text}' names {len(wanted)}")
    relation = next((clause.position[0] for clause in prompt.include if clause.position), None)
    cells = _draw_cells(len(wanted), rng) if relation is None else _draw_related(relation, rng)
    return tuple(_thing(clause, cell, rng) for clause, cell in zip(wanted, cells, strict=True))


def relation_of(subject: Cell, target: Cell) -> str | None:
    """The relation of the subject's cell to the target's where it is clear-cut, else None.

    Clear-cut: one offset is at least twice the other. GenEval's 60-degree cones overlap on the diagonals and are wider;
    everything clear-cut here holds there, and nothing else holds beside it.
    """
    down, right = subject[0] - target[0], subject[1] - target[1]
    if abs(right) >= 2 * abs(down):
        return RELATIONS[1] if right > 0 else RELATIONS[0]
    if abs(down) >= 2 * abs(right):
        return RELATIONS[3] if down > 0 else RELATIONS[2]
    return None


def _thing(clause: Clause, cell: Cell, rng: np.random.Generator) -> Thing:
    color = clause.color or COLORS[rng.integers(len(COLORS))]
    return Thing(shape=clause.class_name, color=color, row=cell[0], column=cell[1])


def _draw_cells(count: int, rng: np.random.Generator) -> Sequence[Cell]:
    """Uniform over all ordered placements of `count` objects that do not overlap (rejection sampling)."""
    side = GRID - SPAN + 1
    while True:
        flat = rng.integers(side * side, size=count)
        cells = [divmod(int(place), side) for place in flat]
        if all(_apart(a, b) for i, a in enumerate(cells) for b in cells[:i]):
            return cells


def _draw_related(relation: str, rng: np.random.Generator) -> Sequence[Cell]:
    """(target, subject): include[0] is what the subject, include[1], is placed against."""
    placements = _placements(relation)
    return placements[rng.integers(len(placements))]


@cache
def _placements(relation: str) -> tuple[tuple[Cell, Cell], ...]:
    side = range(GRID - SPAN + 1)
    cells = [(row, column) for row in side for column in side]
    pairs = ((target, subject) for target in cells for subject in cells if _apart(target, subject))
    return tuple(pair for pair in pairs if relation_of(pair[1], pair[0]) == relation)


def _apart(a: Cell, b: Cell) -> bool:
    return abs(a[0] - b[0]) >= SPAN or abs(a[1] - b[1]) >= SPAN
