"""What an image tokenizer or a VAE leaves of a scene: fidelity of pixels, and whether the exact detector still sees it.

A scene survives when, after encode and decode, the detector finds exactly its objects: class, colour and place, each
with a score above GenEval's strictest threshold (counting).
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genloop.protocols import ImageTokenizer
from genloop.records import TAGS, color_names
from genloop.shapes.detector import ShapesDetector
from genloop.shapes.prompts import SETS, pool
from genloop.shapes.render import render
from genloop.shapes.scenes import CELL, Scene, scene_for

MIN_SCORE = 0.9  # GenEval's threshold for counting
_BATCH = 250


def measure_survival(rebuild: Callable[[Tensor], Tensor], *, seed: int, num_scenes: int) -> dict[str, Any]:
    """Encode and decode fresh scenes of all prompt sets -> {"scenes", "survived", "psnr"}.

    rebuild: (B, 3, H, W) in [0, 1] -> what is left of them. `psnr` is in dB over all pixels in [0, 1]; None when
    nothing differs.
    """
    survived, squared = 0, 0.0
    for start in range(0, num_scenes, _BATCH):
        scenes = [_draw(seed, index) for index in range(start, min(start + _BATCH, num_scenes))]
        pixels = torch.from_numpy(render(scenes)).permute(0, 3, 1, 2).float() / 255
        decoded = rebuild(pixels).float().cpu().clamp(0, 1)
        squared += (decoded - pixels).double().square().sum().item()
        survived += _count_surviving(scenes, (decoded * 255).round().byte().permute(0, 2, 3, 1).numpy())
    mean = squared / (num_scenes * render([()]).size)
    psnr = None if mean == 0 else round(-10 * float(np.log10(mean)), 2)
    return {"scenes": num_scenes, "survived": survived, "psnr": psnr}


def token_survival(tokenizer: ImageTokenizer, *, seed: int, num_scenes: int) -> dict[str, Any]:
    """The same through the codes of an image tokenizer -> also {"codes_used", "num_codes"}."""
    used: set[int] = set()

    def rebuild(pixels: Tensor) -> Tensor:
        codes = tokenizer.encode(pixels)
        used.update(codes.unique().tolist())
        return tokenizer.decode(codes)

    found = measure_survival(rebuild, seed=seed, num_scenes=num_scenes)
    return found | {"codes_used": len(used), "num_codes": tokenizer.num_codes}


def _draw(seed: int, index: int) -> Scene:
    """A scene for a sentence of any set, held-out ones included; keyed apart from the training scenes."""
    rng = np.random.default_rng([seed, index, 1])
    candidates: tuple = ()
    while not candidates:
        candidates = pool(SETS[rng.integers(len(SETS))], TAGS[rng.integers(len(TAGS))])
    return scene_for(candidates[rng.integers(len(candidates))], rng)


def _count_surviving(scenes: list[Scene], images: np.ndarray) -> int:
    detector = ShapesDetector()
    count = 0
    for scene, image, found in zip(scenes, images, detector.detect(list(images)), strict=True):
        confident = [detection for detection in found if detection.score > MIN_SCORE]
        colors = color_names(detector.scores([(image, confident)])[0])
        seen = sorted(
            (d.class_name, color, round(d.box[1] / CELL), round(d.box[0] / CELL))
            for d, color in zip(confident, colors, strict=True)
        )
        count += seen == sorted((thing.shape, thing.color, thing.row, thing.column) for thing in scene)
    return count
