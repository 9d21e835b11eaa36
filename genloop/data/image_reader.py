"""Image files as everything in the suite sees them, upright RGB, decoded ahead of whoever looks at them."""

import io
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from genloop.data.images import decoding_errors, encode_png, open_image, upright_rgb
from genloop.data.members import is_member, read_any
from genloop.data.shards import Sample, Shards

_PNG = b"\x89PNG\r\n\x1a\n"


class UnreadableImage(ValueError):
    """A file that is there but does not decode."""


class ImageReader:
    """Decodes the images of a folder in a few threads, so that a detector need not wait; a context manager."""

    def __init__(self, folder: Path, num_threads: int = 4) -> None:
        self.folder = folder
        self._pool = ThreadPoolExecutor(num_threads, thread_name_prefix="decode")
        self._underway: dict[str, Future[np.ndarray]] = {}

    def __enter__(self) -> "ImageReader":
        return self

    def __exit__(self, *error: Any) -> None:
        self._pool.shutdown(cancel_futures=True)

    def start(self, names: Iterable[str]) -> None:
        """Begin to decode the images that are needed next; what else was begun is forgotten."""
        wanted = list(names)
        for name in self._underway.keys() - set(wanted):
            self._underway.pop(name).cancel()
        self.go_on(wanted)

    def go_on(self, names: Iterable[str]) -> None:
        """Begin to decode more images, which may be needed after those that were begun."""
        for name in names:
            if name not in self._underway:
                self._underway[name] = self._pool.submit(read_image, self.folder / name)

    def take(self, names: Sequence[str]) -> list[np.ndarray | UnreadableImage]:
        """The pixels (H, W, 3) of images in order; for one that does not decode the error that says why."""
        self.go_on(names)
        begun = {name: self._underway.pop(name) for name in dict.fromkeys(names)}
        return [_outcome(begun[name]) for name in names]


def read_image(path: Path) -> np.ndarray:
    """An image file -> (H, W, 3) uint8 RGB, turned as its EXIF data says; UnreadableImage when it does not decode."""
    try:
        data = read_any(path)  # a failing disk is not a broken image: its OSError passes
    except ValueError as error:
        raise UnreadableImage(str(error)) from None
    return decode_image(data)


def image_size(path: Path) -> tuple[int, int] | None:
    """Width and height as an image file's header says, not turned; None when it says nothing."""
    try:
        with open_image(io.BytesIO(read_any(path)) if is_member(path) else path) as image:
            return image.size
    except decoding_errors():
        return None


def check_images(shards: Shards, side: int) -> None:
    """Refuse shards in which a sample lacks its png, or whose first one is not `side` pixels high and wide."""
    lacking = np.flatnonzero(shards.column("png")["size"] < 0)[:1].tolist()
    for position in sorted({*lacking, *accumulate(shards.sizes[:-1], initial=0)}):
        sample_pixels(shards.read(position), side)


def sample_pixels(sample: Sample, side: int | None = None) -> np.ndarray:
    """The png of a shard's sample -> (H, W, 3) uint8, both `side` where that is given.

    ValueError names a sample without it, or where it is broken or of another size.
    """
    if "png" not in sample.fields:
        raise ValueError(f"{sample.name} has {', '.join(sample.fields)}; needs png")
    try:
        pixels = decode_image(sample.fields["png"])
    except UnreadableImage as error:
        raise ValueError(f"{sample.name}: png: {error}") from None
    if side is not None and pixels.shape[:2] != (side, side):
        raise ValueError(f"{sample.name}: png: {pixels.shape[1]} x {pixels.shape[0]} pixels, needs {side} x {side}")
    return pixels


def decode_image(data: bytes) -> np.ndarray:
    """The bytes of an image file -> (H, W, 3) uint8 RGB, upright; UnreadableImage when they do not decode."""
    from PIL import UnidentifiedImageError

    try:
        with open_image(io.BytesIO(data)) as image:
            return upright_rgb(image)
    except UnidentifiedImageError:
        raise UnreadableImage("not a PNG, JPEG or WebP image") from None
    except decoding_errors() as error:
        raise UnreadableImage(" ".join(str(error).split())) from None


def as_png(data: bytes) -> bytes:
    """The bytes of a PNG file as they are, the pixels of another image file as one; UnreadableImage."""
    pixels = decode_image(data)
    return data if data.startswith(_PNG) else encode_png(pixels)


def _outcome(future: "Future[np.ndarray]") -> np.ndarray | UnreadableImage:
    try:
        return future.result()
    except UnreadableImage as error:
        return error
