"""Which images stand beside each other: candidates, the same prompts of other runs, and the reference of each.

Pairs have the same prompt, by text and by which of equal texts, and the same number; images without prompts the same
name. No torch.
"""

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from genloop.data.image_reader import image_size
from genloop.data.pictures import Picture, find_pictures

OURS, SHUFFLED, REFERENCE = "images", "shuffled", "reference"


class Side(NamedTuple):
    """What stands in one place of every pair."""

    folder: Path
    pictures: Sequence[Picture]


class Wants(Protocol):
    """Options of a metric of pairs."""

    size: int | None  # side in pixels to which all images are brought; None: those of a pair must agree

    def min_sides(self) -> Mapping[str, int]:
        """{metric: pixels that it needs}"""


def partners(pictures: Sequence[Picture], folder: Path, prompts: Path | None, key: str) -> list[Picture]:
    """Of every picture its partner in another folder; ValueError that begins with the config key if one lacks it."""
    theirs = _keyed(find_pictures(folder, prompts))
    ours = _keyed(pictures)
    if lacking := [(mark, picture) for mark, picture in ours.items() if mark not in theirs]:
        mark, picture = lacking[0]
        what = f"prompt {picture.prompt.text!r}, image {picture.number}" if picture.prompt else f"the name {mark[2]}"
        raise ValueError(
            f"{key}: {folder} has no image of {what}; {len(lacking)} of {len(ours)} images have no partner there"
        )
    return [theirs[mark] for mark in ours]


def shuffled(pictures: Sequence[Picture], seed: int) -> list[int] | None:
    """Of every picture the place of one that shows another prompt, with the same number if there is one.

    None where all show the same prompt. The prompts, in an order that is drawn once, go round by one.
    """
    groups: dict[Hashable, list[int]] = {}
    for place, picture in enumerate(pictures):
        groups.setdefault(picture.prompt.text if picture.prompt else ("", place), []).append(place)
    if len(groups) < 2:
        return None
    names = list(groups)
    order = np.random.default_rng([seed, 0x5F]).permutation(len(names)).tolist()
    after = {names[here]: groups[names[there]] for here, there in zip(order, order[1:] + order[:1])}
    found = [0] * len(pictures)
    for name, members in groups.items():
        others = after[name]
        for number, place in enumerate(members):
            found[place] = others[number % len(others)]
    return found


def check_sizes(sides: Mapping[str, Side], wants: Wants) -> None:
    """Refuse an image without a readable header, and pairs that cannot be compared; ValueError names key and file.

    `sides` are those of every pair by config key, the reference last.
    """
    theirs = sides[REFERENCE]
    wanted = [_size(theirs.folder / picture.image, REFERENCE) for picture in theirs.pictures]
    for key, (folder, pictures) in sides.items():
        for place, picture in enumerate(pictures):
            found = _size(folder / picture.image, key)
            if wants.size is None and found != wanted[place]:
                other, (width, height) = theirs.folder / theirs.pictures[place].image, wanted[place]
                raise ValueError(
                    f"{key}: {folder / picture.image} is {found[0]} x {found[1]} pixels, {other} {width} x {height}; "
                    "give metrics.pairs.size to bring both to one size"
                )
    smallest = wants.size if wants.size is not None else min(min(pair) for pair in wanted)
    for name, pixels in wants.min_sides().items():
        if smallest < pixels:
            hint = "; or use fewer metrics.pairs.scales" if name == "ms_ssim" else ""
            raise ValueError(
                f"metrics.pairs.of: {name} needs images of {pixels} pixels a side, found {smallest}; leave it out{hint}"
            )


def _size(path: Path, key: str) -> tuple[int, int]:
    found = image_size(path)
    if found is None:
        raise ValueError(f"{key}: {path} is not a PNG, JPEG or WebP image")
    return found


def _keyed(pictures: Sequence[Picture]) -> dict[tuple[str, int, int | str], Picture]:
    """{(prompt, which of equal prompts, number), or ("", 0, name): picture}"""
    seen: dict[str, list[int]] = {}
    found: dict[tuple[str, int, int | str], Picture] = {}
    for picture in pictures:
        if picture.prompt is None:
            found["", 0, Path(picture.image).with_suffix("").as_posix()] = picture
            continue
        known = seen.setdefault(picture.prompt.text, [])
        if picture.prompt.index not in known:
            known.append(picture.prompt.index)
        found[picture.prompt.text, known.index(picture.prompt.index), picture.number] = picture
    return found
