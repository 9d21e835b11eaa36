"""Mask2Former as a detector: images of one padded size share forward passes, masks are made where somebody looks.

Images are never padded further than on their own, since padding reaches every answer. When memory runs out the batches
are halved and the same images are tried again. On a GPU the last bits of an image may depend on how many share a pass;
`pixels_per_forward=1` rules that out.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from geneval.judging import no_numbers
from geneval.names import OBJECT_NAMES
from genloop.models.common.footprint import kind_of
from genloop.models.common.memory import Budget
from genloop.models.mask2former.config import Preparation
from genloop.models.mask2former.instances import Instance, instances
from genloop.models.mask2former.load import Mask2Former, raw_logits
from genloop.models.mask2former.pixels import Size, prepare, sizes_of
from genloop.records import Detection, Wanted

_EVERYTHING = Wanted(-1.0, frozenset(OBJECT_NAMES))
_ON_A_GPU = 8 * 800 * 800


class Mask2FormerDetector:
    """Implements the Detector and Selective protocols. A detection does not depend on the images beside it."""

    classes: Sequence[str] = OBJECT_NAMES

    def __init__(
        self, network: Mask2Former, preparation: Preparation, *, pixels_per_forward: int | None = None
    ) -> None:
        self.network, self.preparation = network, preparation
        self.device = next(network.parameters()).device
        default = _ON_A_GPU if kind_of(self.device) == "cuda" else 1
        self.budget = Budget(pixels_per_forward or default, "pixels_per_forward")

    @property
    def one_by_one(self) -> bool:
        """Whether every image has a pass of its own anyway, so that a caller may as well look up between two."""
        return self.budget.limit == 1

    def detect(self, images: Sequence[np.ndarray]) -> list[list[Detection]]:
        """Images (H, W, 3) uint8 RGB, sizes may differ -> the 100 likeliest of each with their masks, best first.

        An empty mask has score 0 and a box of zeros.
        """
        return self.detect_for(images, [_EVERYTHING] * len(images))

    def detect_for(self, images: Sequence[np.ndarray], wanted: Sequence[Wanted]) -> list[list[Detection]]:
        """As `detect`, but for each image only what is above its threshold, and masks only of the classes it names."""
        found: list[list[Detection]] = [[] for _ in images]
        groups: dict[Size, list[int]] = {}
        for place, (image, _) in enumerate(zip(images, wanted, strict=True)):
            if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
                raise ValueError(f"an image must be (H, W, 3) uint8, found {image.shape} {image.dtype}")
            groups.setdefault(sizes_of(image.shape[:2], self.preparation.scale).padded, []).append(place)
        for padded, places in groups.items():
            batches = self.budget.run(places, padded[0] * padded[1], partial(self._batch, images, wanted))
            for place, detections in zip(places, batches, strict=True):
                found[place] = detections
        return found

    def _batch(
        self, images: Sequence[np.ndarray], wanted: Sequence[Wanted], places: Sequence[int]
    ) -> list[list[Detection]]:
        """The detections of some images of one padded size."""
        pixels = torch.stack([prepare(images[place], self.preparation, self.device) for place in places])
        class_logits, mask_logits = raw_logits(self.network, pixels)
        if not (class_logits.isfinite().all() and mask_logits.isfinite().all()):
            raise no_numbers("the detector's logits")
        return [
            self._detections(images[place].shape[:2], wanted[place], classes, masks)
            for place, classes, masks in zip(places, class_logits, mask_logits)
        ]

    @torch.inference_mode()
    def _detections(self, shape: Size, wanted: Wanted, class_logits: Tensor, mask_logits: Tensor) -> list[Detection]:
        """Of one image: from (Q, 81) and (Q, h, w)"""
        found = instances(
            class_logits,
            mask_logits,
            sizes_of(shape, self.preparation.scale),
            threshold=wanted.threshold,
            needs_mask=lambda label: OBJECT_NAMES[label] in wanted.masks_of,
        )
        masks = _masks(found)
        return [
            Detection(
                OBJECT_NAMES[one.label],
                one.score,
                one.box,
                masks[one.query] if one.mask is not None else None,
                one.area,
            )
            for one in found
        ]


def _masks(found: Sequence[Instance]) -> dict[int, np.ndarray]:
    """{query: (H, W) bool}; instances of one query share their mask."""
    return {one.query: one.mask.cpu().numpy() for one in found if one.mask is not None}
