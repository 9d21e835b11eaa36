"""Photographs and generated images as a source of traces: folders, shards, runs of generate.

An image without a diagnosis is taken for clean: faults are put into it, and it is the reference. One with a diagnosis
of its own is refused, or, with `keeps_faults`, begins a trace with the fault that it came with and no reference: the
rules go by numbers of the whole image, and take a picture of a sunset for one with a colour cast.
Grey, transparent, 16-bit, CMYK and rotated images become upright 8-bit RGB; a broken, an empty or a tiny one is refused
with a reason, and the others go on.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from genloop.data.image_reader import decode_image
from genloop.data.irg.diagnose import diagnose
from genloop.data.irg.features import measure
from genloop.data.irg.loop import Beginning, Drawn
from genloop.data.irg.plan import FaultShares, draw_plan
from genloop.data.members import read_any
from genloop.data.pictures import Picture

MIN_SIDE = 16  # pixels of the shorter side; below it features say little


class Refused(ValueError):
    """An image that no trace is made of; the message says why."""


@dataclass(frozen=True, slots=True)
class PhotographTraces:
    """Images of a folder, each in turn; trace i is a function of (seed, i), the shares and its image."""

    name: str  # folder, shards or run
    folder: Path
    pictures: Sequence[Picture]
    instruction: str | None  # of images without a prompt
    seed: int
    shares: FaultShares
    side: int  # pixels of the longer side, at most
    keeps_faults: bool = False

    def start(self, index: int) -> tuple[Beginning, dict[str, str]]:
        """What trace `index` begins with, and where it comes from; Refused for an image that cannot be used."""
        picture = self.pictures[index % len(self.pictures)]
        rng = np.random.default_rng([self.seed, index])
        plan = draw_plan(rng, self.shares, is_scene=False)
        try:
            data = read_any(self.folder / picture.image)
            image = fit(decode_image(data), self.side)
        except ValueError as error:  # a failing disk is not a broken image: its OSError passes
            raise Refused(f"{picture.image}: {error}") from None
        instruction = picture.prompt.text if picture.prompt else self.instruction
        if not instruction:
            raise Refused(f"{picture.image}: has no instruction")
        about = {"source": self.name, "image": picture.image, "source_sha256": hashlib.sha256(data).hexdigest()}
        if own := diagnose(measure(image)):
            if not self.keeps_faults:
                raise Refused(f"{picture.image}: has a fault of its own: {', '.join(one.issue for one in own)}")
            return Beginning(Drawn(image), instruction), about | {"kind": "found"}
        spoilt, labels = plan.spoil(image, rng)
        wrong = plan.begins_wrong
        start = Beginning(Drawn(spoilt), instruction, injected=labels, reference=image, begins_wrong=wrong)
        return start, about | {"kind": plan.kind}


def fit(image: np.ndarray, side: int) -> np.ndarray:
    """(H, W, 3) uint8 -> the same with a longer side of at most `side`; ValueError when a side is below MIN_SIDE."""
    from PIL import Image

    height, width = image.shape[:2]
    scale = min(1.0, side / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    if min(size) < MIN_SIDE:
        raise ValueError(
            f"{width} x {height} pixels, {size[0]} x {size[1]} at this resolution; needs {MIN_SIDE} a side"
        )
    if scale == 1.0:
        return image
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))
