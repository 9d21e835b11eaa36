"""A micro-batch of judge training as CPU tensors: pixels, packed rows, labels, pairs, cells. Made in loader processes.

I = distinct images, S = image size, R = supervised positions, K = those of them that have a label, T = patches.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from genloop.data.image_reader import decode_image
from genloop.data.judge.examples import QUESTIONS, UNKNOWN
from genloop.job import note
from genloop.reading import read_bytes
from genloop.training.objectives.judge.branches import NAME
from genloop.training.objectives.judge.data import JudgeData
from genloop.training.objectives.judge.items import AskedImage, Item, ItemPlans, names_in, term_of
from genloop.training.objectives.judge.packing import PackedRows, Row, pack

PixelsOf = Callable[[np.ndarray], Tensor]  # (H, W, 3) uint8 -> normalised (3, S, S)
IGNORE = -100  # torch's default for classes that do not count


@dataclass(frozen=True, eq=False)
class Supervised:
    """The K supervised positions with a label, and which of them enter each term of the loss."""

    places: Tensor  # (K,) among the R packed ones
    kinds: Tensor  # (K,) number of a question, REASON, WORD or NAME
    labels: Tensor  # (K,) float32: a question's label, whether a name is in the image
    targets: Tensor  # (K,) next id for REASON and WORD
    terms: dict[str, Tensor]  # term -> numbers below K


@dataclass(frozen=True, eq=False)
class Pairs:
    """Margins to rank, by numbers below K: (p,) better, (p,) worse, (p,) difference of the labels."""

    better: Tensor
    worse: Tensor
    gaps: Tensor


@dataclass(frozen=True, eq=False)
class Cells:
    """Images whose patches have classes: (k,) places among the images, (k, T, planes) classes or IGNORE."""

    images: Tensor
    classes: Tensor


@dataclass(frozen=True, eq=False)
class JudgeBatch:
    """What the loss of some items needs; `totals` counts what enters each term in the batch of all ranks."""

    pixels: Tensor  # (I, 3, S, S)
    packed: PackedRows
    supervised: Supervised
    pairs: Pairs
    cells: Cells | None
    share: float  # of the items of the whole batch
    totals: dict[str, int]


def load_batch(
    items: Sequence[Item],
    plans: ItemPlans,
    pixels_of: PixelsOf,
    *,
    num_patches: int,
    num_items: int,
    totals: dict[str, int],
) -> JudgeBatch:
    """Read the images of some items and lay out what is asked about them."""
    asked = [(item, one) for item in items for one in plans.asked(item)]
    places = {image: place for place, image in enumerate(dict.fromkeys(one.image for _, one in asked))}
    supervised, numbers = _supervised(asked, plans.data)
    return JudgeBatch(
        pixels=torch.stack([pixels_of(read_image(plans.data, image)) for image in places]),
        packed=pack([Row(places[one.image], one.branches) for _, one in asked], num_patches + 1),
        supervised=supervised,
        pairs=_pairs(items, plans, numbers),
        cells=_cells([one.image for _, one in asked], places, plans.data, num_patches) if plans.cells else None,
        share=len(items) / num_items,
        totals=totals,
    )


def read_image(data: JudgeData, image: tuple[int, int]) -> np.ndarray:
    """(data set, image) -> (H, W, 3) uint8; data set -1: the image of a conversation."""
    source, number = image
    if source >= 0:
        return data.sets[source].images[number]
    path = data.conversations[number].image
    with note(f"image {path}"):
        return decode_image(read_bytes(path))


def _supervised(
    asked: Sequence[tuple[Item, AskedImage]], data: JudgeData
) -> tuple[Supervised, dict[tuple[int, int, int], int]]:
    """-> the labelled positions, and the number of each by (data set, example, kind)."""
    rows: list[tuple[int, int, float, int]] = []  # place, kind, label, target
    terms: dict[str, list[int]] = {}
    numbers: dict[tuple[int, int, int], int] = {}
    place = -1
    for item, one in asked:
        present = names_in(data.sets[item.source], one.image[1]) if item.source >= 0 else None
        for branch, example in zip(one.branches, one.examples, strict=True):
            for kind, target in zip(branch.kinds.tolist(), branch.targets.tolist()):
                place += 1
                label = _label(kind, target, item.source, example, data, present)
                if label != label:
                    continue  # nobody knows
                numbers[item.source, example, kind] = len(rows)
                terms.setdefault(term_of(kind, item.kind), []).append(len(rows))
                rows.append((place, kind, label, max(target, 0)))
    places, kinds, labels, targets = torch.tensor(rows, dtype=torch.float64).reshape(-1, 4).T
    members = {term: torch.tensor(found) for term, found in sorted(terms.items())}
    return Supervised(places.long(), kinds.long(), labels.float(), targets.long(), members), numbers


def _label(kind: int, target: int, source: int, example: int, data: JudgeData, present: np.ndarray | None) -> float:
    """The label of a question; whether a name is in the image, NaN where nobody knows; 1 for written words."""
    if kind < len(QUESTIONS):
        return float(data.sets[source].labels[example, kind])
    if kind == NAME:
        return float("nan") if present is None else float(present[target])
    return 1.0


def _pairs(items: Sequence[Item], plans: ItemPlans, numbers: dict[tuple[int, int, int], int]) -> Pairs:
    better, worse, gaps = [], [], []
    for item in items:
        for (one, other, question), gap in zip(*(part.tolist() for part in plans.pairs(item))):
            better.append(numbers[item.source, one, question])
            worse.append(numbers[item.source, other, question])
            gaps.append(gap)
    places = torch.tensor([better, worse], dtype=torch.int64)
    return Pairs(places[0], places[1], torch.tensor(gaps, dtype=torch.float32))


def _cells(
    images: Sequence[tuple[int, int]], places: dict[tuple[int, int], int], data: JudgeData, num_patches: int
) -> Cells | None:
    """The classes of patches, for each of the images that has some; ValueError where patches are no cells."""
    found = [(places[s, image], data.sets[s].cells.get(image)) for s, image in images if s >= 0]
    known = [(place, cells) for place, cells in found if cells is not None]
    if not known:
        return None
    classes = torch.from_numpy(np.stack([cells.reshape(-1, cells.shape[2]) for _, cells in known])).long()
    if classes.shape[1] != num_patches:
        raise ValueError(
            f"cells.npy has {classes.shape[1]} cells, the vision tower {num_patches} patches; set loss.cells=0 "
            "or use a tower whose patches are the cells"
        )
    return Cells(torch.tensor([place for place, _ in known]), classes.masked_fill(classes == UNKNOWN, IGNORE))
