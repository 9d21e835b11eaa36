"""Pairs of answers about single objects of the embedded world, right and with one word wrong.

Unlike those of genloop.shapes.response_pairs they are asked in 256 ways, so that folds can hold questions out.
"""

import hashlib
import json
from itertools import product
from pathlib import Path

import numpy as np

from genloop.data.images import encode_png
from genloop.data.responses.columns import ColumnNames
from genloop.records import COLORS
from genloop.shapes.prompts import pool
from genloop.shapes.render import render
from genloop.shapes.scenes import SHAPES, scene_for

_ASKED = (
    ("Please", "Kindly", "In one line,", "In short,"),
    ("describe", "name", "tell me", "say"),
    ("what you see", "what is there", "what it shows", "the thing"),
    ("in this image.", "in the picture.", "here.", "in the scene."),
)
QUERIES = tuple(" ".join(parts) for parts in product(*_ASKED))  # 256: folds hold out questions too
WORDS = tuple(dict.fromkeys([*"\n".join(QUERIES).replace(".", " ").replace(",", " ").split(), "A", *SHAPES, *COLORS]))


COLUMNS = ColumnNames(first="first", second="second", better="better")


def write_pairs(folder: Path, *, count: int = 24, num_queries: int = len(QUERIES), seed: int = 0) -> Path:
    """FOLDER/pairs.jsonl and an image a row; the same bytes every time. Returns the file."""
    folder.mkdir(parents=True, exist_ok=True)
    scenes, lines = pool("train", "colors"), list[str]()
    for number in range(count):
        rng = np.random.default_rng([20, seed, number])
        prompt = scenes[int(rng.integers(len(scenes)))]
        clause = prompt.include[0]
        image = encode_png(render([scene_for(prompt, rng)])[0])
        (folder / f"{number:04d}.png").write_bytes(image)
        asked = int.from_bytes(hashlib.sha256(image).digest()[:4]) % num_queries  # equal images are asked the same
        color, shape = str(clause.color), clause.class_name
        other = [one for one in COLORS if one != color] if rng.integers(2) else [one for one in SHAPES if one != shape]
        wrong = str(other[int(rng.integers(len(other)))])
        wrong_pair = (wrong, shape) if wrong in COLORS else (color, wrong)
        answers = [f"A {color} {shape}.", "A {} {}.".format(*wrong_pair)]
        better = int(rng.integers(2))
        row = {"image": f"{number:04d}.png", "query": QUERIES[asked], "first": answers[better]}
        lines.append(json.dumps(row | {"second": answers[1 - better], "better": better}))
    (folder / "pairs.jsonl").write_text("\n".join(lines) + "\n")
    return folder / "pairs.jsonl"
