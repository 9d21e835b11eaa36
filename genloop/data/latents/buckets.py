"""Aspect buckets: images of like shape are cut to one size, so that a batch is a rectangle of latents.

Sizes are multiples of `step` pixels whose area is at most that of a square of `resolution` (Novel AI 2022).
N = images, W, H = pixels of an image, w, h = those of its bucket.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from genloop.data.order import Order


class Size(NamedTuple):
    """Width and height in pixels."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


class Crop(NamedTuple):
    """An image is scaled to `scaled`, then cut at `left`, `top` to the size of its bucket."""

    scaled: Size
    left: int
    top: int
    size: Size


def bucket_sizes(resolution: int, step: int) -> list[Size]:
    """All sizes, the tallest first: to each side from resolution / 2 to 2 * resolution the largest other one."""
    found = set()
    for side in range(step, 2 * resolution + 1, step):
        other = resolution**2 // side // step * step
        if min(side, other) * 2 >= resolution and max(side, other) <= 2 * resolution:
            found |= {Size(side, other), Size(other, side)}
    return sorted(found, key=lambda size: size.width / size.height)


def crop_of(image: Size, sizes: Sequence[Size]) -> Crop:
    """The middle of an image, cut to the size of the nearest aspect ratio (by its logarithm, the larger on a tie).

    ValueError for an image that would have to be enlarged.
    """
    aspect = math.log(image.width / image.height)
    size = min(sizes, key=lambda s: (abs(math.log(s.width / s.height) - aspect), -s.width * s.height))
    if image.width < size.width or image.height < size.height:
        raise ValueError(f"{image} pixels are fewer than the {size} of its bucket; lower `resolution`, or leave it out")
    return middle_of(image, size)


def middle_of(image: Size, size: Size) -> Crop:
    """The middle of an image, scaled so that it fills `size`."""
    scale = max(size.width / image.width, size.height / image.height)
    scaled = Size(max(size.width, round(image.width * scale)), max(size.height, round(image.height * scale)))
    return Crop(scaled, (scaled.width - size.width) // 2, (scaled.height - size.height) // 2, size)


def cut(image: np.ndarray, crop: Crop) -> np.ndarray:
    """(H, W, 3) uint8 -> (h, w, 3) uint8, scaled with Lanczos' filter."""
    from PIL import Image

    if (image.shape[1], image.shape[0]) != crop.scaled:
        image = np.asarray(Image.fromarray(image).resize(crop.scaled, Image.Resampling.LANCZOS))
    return image[crop.top : crop.top + crop.size.height, crop.left : crop.left + crop.size.width]


class BucketOrder:
    """Which samples come at which step: batches of one bucket, in an order keyed by (seed, epoch).

    A bucket's samples come in the order of `genloop.data.order`, one epoch after the other without a gap, and every
    batch is full. After e epochs of all N samples a bucket of n has had floor(e * n / batch) batches, so that all
    samples are seen equally often.
    """

    def __init__(self, buckets: Sequence[np.ndarray], shards: np.ndarray, *, seed: int, batch_size: int) -> None:
        """buckets: the positions of the samples of each, ascending; shards (N,): the shard of every position."""
        self.buckets, self.seed, self.batch_size = [b for b in buckets if len(b)], seed, batch_size
        if not self.buckets:
            raise ValueError("a set without samples has no order")
        self._sizes = np.array([len(bucket) for bucket in self.buckets], dtype=np.int64)
        self._orders = [
            Order(np.bincount(shards[bucket]).tolist(), seed if number == 0 else seed + number)
            for number, bucket in enumerate(self.buckets)
        ]
        self._epoch, self._sequence = -1, np.empty(0, np.int64)

    def rows(self, step: int) -> list[int]:
        """The positions of step 1, 2, ...: `batch_size` of one bucket."""
        epoch = self._epoch_of(step)
        if epoch != self._epoch:
            counts = self._done(epoch + 1) - self._done(epoch)
            order = np.random.default_rng([self.seed, 4, epoch])
            self._epoch, self._sequence = epoch, order.permutation(np.repeat(np.arange(len(counts)), counts))
        done = self._done(epoch)
        place = step - 1 - int(done.sum())
        bucket = int(self._sequence[place])
        number = int(done[bucket]) + int((self._sequence[:place] == bucket).sum()) + 1
        return self.buckets[bucket][self._orders[bucket].rows(number, self.batch_size)].tolist()

    def _done(self, epochs: int) -> np.ndarray:
        """(buckets,) batches before an epoch."""
        return epochs * self._sizes // self.batch_size

    def _epoch_of(self, step: int) -> int:
        """The epoch that holds a step: the largest that begins before it."""
        epoch = step * self.batch_size // int(self._sizes.sum())
        while int(self._done(epoch).sum()) >= step:
            epoch -= 1
        while int(self._done(epoch + 1).sum()) < step:
            epoch += 1
        return epoch
