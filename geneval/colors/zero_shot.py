"""Colours of objects by CLIP, zero-shot, as GenEval names them (Ghosh et al. 2023): crops against sentences.

The sentences about one colour are three unit vectors; their mean, of length 1 again, stands for the colour. A score is
100 times the cosine of a crop and a colour. N = objects, D = embedding size, C = colours.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from geneval.colors.crops import crop
from genloop.records import COLORS, Detection

TEMPLATES = ("a photo of a {color} {name}", "a photo of a {color}-colored {name}", "a photo of a {color} object")
_SCALE = 100.0


class ColorEmbedder(Protocol):
    """Images and texts as unit vectors of one space; `genloop.models.clip.load.ClipEmbedder` is one."""

    def autocast(self) -> AbstractContextManager:
        """Where products are taken in its precision."""

    def embed_images(self, images: Sequence[np.ndarray]) -> Tensor:
        """B times (H, W, 3) uint8 -> (B, D)"""

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """-> (T, D)"""


def color_texts(class_name: str) -> list[str]:
    """The sentences about objects of a class, all those of the first colour first; the last of each names no class."""
    return [template.format(color=color, name=class_name) for color in COLORS for template in TEMPLATES]


class ClipColors:
    """Implements the ColorClassifier protocol."""

    def __init__(self, embedder: ColorEmbedder, *, background: str = "#999", to_box: bool = True) -> None:
        self.embedder, self.background, self.to_box = embedder, background, to_box
        self._texts: dict[str, Tensor] = {}  # those of all classes, (D,) each
        self._weights: dict[str, Tensor] = {}

    def scores(self, requests: Sequence[tuple[np.ndarray, Sequence[Detection]]]) -> list[np.ndarray]:
        """Requests, each an image (H, W, 3) uint8 and detections in it, all of one class -> (N, 10) float32 each."""
        crops = [self._crop(image, detection) for image, detections in requests for detection in detections]
        if not crops:
            return [np.zeros((0, len(COLORS)), dtype=np.float32) for _ in requests]
        features = iter(self.embedder.embed_images(crops).split([len(detections) for _, detections in requests]))
        return [
            self.compare(next(features), self.weights(detections[0].class_name) if detections else None)
            for _, detections in requests
        ]

    def weights(self, class_name: str) -> Tensor:
        """What stands for the colours of a class: (D, C) float32, computed once."""
        if class_name not in self._weights:
            texts = color_texts(class_name)
            new = [text for text in dict.fromkeys(texts) if text not in self._texts]
            self._texts |= zip(new, self.embedder.embed_texts(new))
            vectors = torch.stack([self._texts[text] for text in texts])  # (3C, D)
            means = vectors.unflatten(0, (len(COLORS), len(TEMPLATES))).mean(dim=1)
            self._weights[class_name] = normalize(means, dim=-1).T.contiguous()
        return self._weights[class_name]

    def compare(self, features: Tensor, weights: Tensor | None) -> np.ndarray:
        """Unit vectors (N, D), (D, C) -> (N, C) float32; row by row, as the last bit depends on the number of rows."""
        if weights is None:
            return np.zeros((0, len(COLORS)), dtype=np.float32)
        with self.embedder.autocast():
            scores = torch.cat([_SCALE * row @ weights for row in features.split(1)])
        return scores.float().cpu().numpy()

    def _crop(self, image: np.ndarray, detection: Detection) -> np.ndarray:
        found = crop(image, detection, background=self.background, to_box=self.to_box)
        if 0 in found.shape:
            raise ValueError(
                f"the box of a {detection.class_name!r}, {detection.box}, covers no whole pixel, so it has no colour"
            )
        return found
