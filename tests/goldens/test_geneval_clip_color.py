"""Colour sentences, their weights, logits and colours equal the reference's on every recorded class and feature."""

import hashlib
import json
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from geneval.colors.zero_shot import ClipColors, color_texts
from genloop.records import color_names
from tests.goldens.roots import golden_name, golden_paths

TOLERANCE = 1e-5


class Digests:
    """The recorded stand-in for a text tower: the first bytes of a digest are the vector."""

    def __init__(self, seed: int) -> None:
        self.seed, self.asked = seed, []

    def autocast(self) -> AbstractContextManager:
        return nullcontext()

    def embed_images(self, images: Sequence[np.ndarray]) -> Tensor:
        raise AssertionError("only features were recorded")

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        self.asked.extend(texts)
        digests = [hashlib.sha256(f"{self.seed}{text}".encode()).digest()[:16] for text in texts]
        return normalize(torch.tensor([list(digest) for digest in digests]) / 16 - 8, dim=-1)


@pytest.mark.parametrize("file", golden_paths("geneval/**/clip_color*.json"), ids=golden_name)
def test_every_recorded_class_is_ours(file: Path) -> None:
    records = json.loads(file.read_text(encoding="utf-8"))
    assert records
    for record in records:
        colors = ClipColors(Digests(record["seed"]))
        assert color_texts(record["classname"]) == record["texts_in_order"]
        weights = colors.weights(record["classname"])
        assert np.abs(weights.numpy() - np.array(record["classifier"])).max() < TOLERANCE
        features = normalize(torch.tensor(record["image_features"]), dim=-1)
        scores = colors.compare(features, weights)
        assert np.abs(scores - np.array(record["logits"])).max() < TOLERANCE
        assert color_names(scores) == record["colors"]


def test_sentences_without_a_class_are_embedded_once_for_all() -> None:
    embedder = Digests(7)
    colors = ClipColors(embedder)
    first = colors.weights("bench")
    assert len(embedder.asked) == 30
    colors.weights("tv remote")
    assert len(embedder.asked) == 50 and len(set(embedder.asked)) == 50
    assert colors.weights("bench") is first and len(embedder.asked) == 50
