"""Which cells of a finished image to draw again. n = cells of a content (of Show-o: image tokens), H, W = pixels."""

import hashlib
import math
from typing import TYPE_CHECKING

import numpy as np

from genloop.search.image import ImageSearch, Path, Steps, ranking

if TYPE_CHECKING:
    from torch import Tensor

GREY = 0.5


def least_confident(image: ImageSearch, path: Path, count: int) -> "Steps[Tensor]":
    """The `count` cells that fit the text and the others worst, by the generator: (n,) bool."""
    (fit,) = yield from image.confidence([path])
    return _marked(np.argsort(fit.float().cpu().numpy(), kind="stable")[:count], fit.shape[0])


def at_random(image: ImageSearch, path: Path, count: int) -> "Tensor":
    """Any `count` cells, keyed by the path: (n,) bool. A control."""
    seed = image.seed(path.index)
    text = f"{seed.run}/{seed.prompt}/{seed.sample}/{seed.candidate}/region"
    digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
    chance = np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))
    size = math.prod(image.sampler.grid)
    return _marked(chance.permutation(size)[:count], size)


def occluded(image: ImageSearch, path: Path, count: int, blocks: int) -> "Steps[Tensor]":
    """The `count` cells of those blocks without which the judge likes the image best: (n,) bool.

    The image is cut into `blocks` x `blocks`; each is greyed out in turn and the outcome asked (Zeiler & Fergus 2014).
    """
    import torch

    rows, columns = image.sampler.grid
    cells = np.arange(rows * columns).reshape(rows, columns)
    parts = [
        p for band in np.array_split(cells, min(blocks, rows)) for p in np.array_split(band, min(blocks, columns), 1)
    ]
    (pixels,) = yield from image.look([path])  # (3, H, W)
    height, width = pixels.shape[1] // rows, pixels.shape[2] // columns
    hidden = pixels.repeat(len(parts), 1, 1, 1)
    for number, part in enumerate(parts):
        (top, left), (bottom, right) = (divmod(int(part.flat[end]), columns) for end in (0, -1))
        hidden[number, :, top * height : (bottom + 1) * height, left * width : (right + 1) * width] = GREY
    scores = yield from image.ask("outcome", [path] * len(parts), hidden)
    wanted = torch.cat([torch.from_numpy(parts[i].flatten()) for i in ranking(scores)])
    return _marked(wanted.numpy()[:count], rows * columns)


def _marked(indices: np.ndarray, size: int) -> "Tensor":
    """Indices -> (size,) bool"""
    import torch

    marks = torch.zeros(size, dtype=torch.bool)
    marks[torch.from_numpy(indices.copy())] = True
    return marks
