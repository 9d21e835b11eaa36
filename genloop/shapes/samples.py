"""Captioned scenes of the embedded world as training samples: sample i is a function of (seed, i) alone.

Fields of a sample: `txt` the caption, `json` GenEval's metadata and the scene, `codes.npy` (n,) uint16 image codes
and `png` the pixels, where asked for.
"""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from genloop.data.images import encode_png
from genloop.data.shards import Sample, npy_bytes
from genloop.records import TAGS, Prompt
from genloop.shapes.prompts import pool
from genloop.shapes.render import render
from genloop.shapes.scenes import Scene, scene_for

if TYPE_CHECKING:
    from genloop.protocols import ImageTokenizer


def draw(seed: int, index: int, weights: Sequence[float] | None = None) -> tuple[Prompt, Scene]:
    """A training sentence and a scene that shows it; `weights` of the six tasks, default equal."""
    rng = np.random.default_rng([seed, index])
    shares = np.ones(len(TAGS)) if weights is None else np.asarray(weights, dtype=np.float64)
    candidates = pool("train", TAGS[rng.choice(len(TAGS), p=shares / shares.sum())])
    prompt = candidates[rng.integers(len(candidates))]
    return prompt, scene_for(prompt, rng)


def training_samples(
    seed: int,
    indices: Sequence[int],
    tokenizer: "ImageTokenizer | None",
    *,
    weights: Sequence[float] | None = None,
    pixels: bool = False,
) -> list[Sample]:
    """The samples with these indices; codes when a tokenizer is given, PNGs when `pixels`."""
    drawn = [draw(seed, index, weights) for index in indices]
    images = render([scene for _, scene in drawn])
    codes = encode(images, tokenizer) if tokenizer is not None else None
    samples = []
    for row, (index, (prompt, scene)) in enumerate(zip(indices, drawn, strict=True)):
        fields = {"txt": prompt.text.encode(), "json": _description(prompt, scene)}
        if codes is not None:
            fields["codes.npy"] = npy_bytes(codes[row])
        if pixels:
            fields["png"] = encode_png(images[row])
        samples.append(Sample(f"{index:09d}", fields))
    return samples


def encode(images: np.ndarray, tokenizer: "ImageTokenizer") -> np.ndarray:
    """(B, H, W, 3) uint8 -> (B, n) uint16 codes."""
    import torch

    tensor = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    return tokenizer.encode(tensor).cpu().numpy().astype(np.uint16)


def _description(prompt: Prompt, scene: Scene) -> bytes:
    things = [[thing.shape, thing.color, thing.row, thing.column] for thing in scene]
    return json.dumps(prompt.metadata() | {"scene": things}).encode()
