"""Pairs of answers about scenes of the embedded world: what a picture shows, and what it does not, in the same words.

A wrong answer differs in one thing: another shape, number, colour or relation, or the colours of both objects swapped.
Which answer comes first is drawn, so that a place says nothing. Pair i is a function of (seed, i) alone.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from genloop.data.images import encode_png
from genloop.data.prompts import caption
from genloop.records import COLORS, RELATIONS, TAGS, Clause
from genloop.rundir import write_atomic
from genloop.shapes.prompts import NUMBERS, pool
from genloop.shapes.render import render
from genloop.shapes.scenes import SHAPES, Scene, scene_for

QUERY = "What does the picture show?"
_PREFIX = "a photo of "
CHECK = "a photo of {} : done ?"
Draw = Callable[[int, int, str], tuple[dict[str, object], Scene]]  # seed, number, set of prompts -> row, scene
T = TypeVar("T")


def draw_pair(seed: int, index: int, name: str = "test") -> tuple[dict[str, object], Scene]:
    """A row in the layout `columns` without its image, and the scene; `name` is a set of `genloop.shapes.prompts`."""
    rng = np.random.default_rng([seed, index])
    tag = TAGS[index % len(TAGS)]
    candidates = pool(name, tag)
    prompt = candidates[int(rng.integers(len(candidates)))]
    answers = [_words(tag, prompt.include), _words(tag, _altered(tag, prompt.include, rng))]
    better = int(rng.integers(2))
    first, second = answers if better == 0 else answers[::-1]
    row = {"id": f"{name}-{index:05d}", "query": QUERY, "first": first, "second": second}
    return row | {"better": better, "group": tag}, scene_for(prompt, rng)


def draw_question(seed: int, index: int, name: str = "test") -> tuple[dict[str, object], Scene]:
    """The same with one answer of the pair inside the question, as `shapes/judge` is asked: yes or no."""
    row, scene = draw_pair(seed, index, name)
    is_right = bool(np.random.default_rng([seed, index, 1]).integers(2))
    asked = row["first" if is_right == (row["better"] == 0) else "second"]
    changed = {"query": CHECK.format(asked), "first": "yes", "second": "no", "better": int(not is_right)}
    return row | changed, scene


def chat_of_row(row: Mapping[str, object]) -> dict[str, object]:
    """A row with its image -> a chat that ends with the better answer, as `train_vlm` reads it."""
    asked = {"role": "user", "content": row["query"], "images": [row["image"]]}
    return {"messages": [asked, {"role": "assistant", "content": row["second" if row["better"] else "first"]}]}


def write_response_pairs(
    folder: Path, numbers: Sequence[int], *, seed: int = 0, name: str = "test", draw: Draw = draw_pair
) -> Path:
    """Write FOLDER/pairs.jsonl and a PNG a pair; the same bytes every time. -> the path of the file."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for row, png in _drawn(numbers, seed, name, draw):
        file = f"{row['id']}.png"
        write_atomic(folder / file, png)
        lines.append(json.dumps(row | {"image": file}))
    write_atomic(folder / "pairs.jsonl", ("\n".join(lines) + "\n").encode())
    return folder / "pairs.jsonl"


def _drawn(numbers: Sequence[int], seed: int, name: str, draw: Draw) -> Iterator[tuple[dict[str, object], bytes]]:
    pairs = [draw(seed, number, name) for number in numbers]
    for (row, _), image in zip(pairs, render([scene for _, scene in pairs])):
        yield row, encode_png(image)


def _words(tag: str, include: Sequence[Clause]) -> str:
    return caption(tag, include).removeprefix(_PREFIX)


def _altered(tag: str, include: Sequence[Clause], rng: np.random.Generator) -> list[Clause]:
    """The clauses with one thing that the scene does not show."""
    clauses = list(include)
    place = int(rng.integers(len(clauses)))
    one = clauses[place]
    if tag == "counting":
        clauses[place] = replace(one, count=_other(NUMBERS, one.count, rng))
    elif tag == "colors":
        clauses[place] = replace(one, color=_other(COLORS, one.color, rng))
    elif tag == "color_attr" and clauses[0].color != clauses[1].color:
        clauses = [replace(clauses[0], color=clauses[1].color), replace(clauses[1], color=clauses[0].color)]
    elif tag == "position" and clauses[1].position is not None:
        relation, target = clauses[1].position
        clauses[1] = replace(clauses[1], position=(_other(RELATIONS, relation, rng), target))
    else:
        shown = {clause.class_name for clause in clauses}
        others = [shape for shape in SHAPES if shape not in shown]
        clauses[place] = replace(one, class_name=others[int(rng.integers(len(others)))])
    return clauses


def _other(values: Sequence[T], value: T | None, rng: np.random.Generator) -> T:
    rest = [one for one in values if one != value]
    return rest[int(rng.integers(len(rest)))]
