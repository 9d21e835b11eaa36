"""What turns images into vectors: extractors, their makers, and a folder that keeps vectors between runs.

N = images, D = features.
"""

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from pydantic import Field

from genloop.bounds import Seed, Width
from genloop.config import Settings
from genloop.data.shards import MALFORMED, npy_bytes
from genloop.factories import Resolve
from genloop.metrics.clip_source import ClipUser, MetricClip, load_clip_source
from genloop.metrics.makers import Extractor, FeatureMaker, FeatureSettings
from genloop.reading import regular_file
from genloop.rundir import write_atomic

log = logging.getLogger(__name__)


class PixelOptions(Settings):
    """Keys of features `pixels`."""

    side: Width = Field(8, description="pixels that an image is reduced to, a side")
    size: Width = Field(64, description="numbers an image")
    seed: Seed = Field(0, description="of the projection")


class PixelFeatures(FeatureMaker):
    """A random projection of a small copy of the image: needs no weights, sees colours and rough shapes."""

    Options = PixelOptions

    @classmethod
    def load(cls, options: PixelOptions, resolve: Resolve, device: str) -> "PixelExtractor":
        return PixelExtractor(options)


class PixelExtractor:
    """Implements the Extractor protocol."""

    def __init__(self, options: PixelOptions) -> None:
        self.side = options.side
        rng = np.random.default_rng([options.seed, options.side, options.size])
        num_pixels = 3 * options.side**2
        self.projection = rng.normal(size=(num_pixels, options.size)) / np.sqrt(num_pixels)

    def embed(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Images (H, W, 3) uint8 -> (N, D) float32"""
        rows = [self._small(image) @ self.projection for image in images]  # one at a time: equal bits in any company
        return np.array(rows, dtype=np.float32).reshape(-1, self.projection.shape[1])

    def _small(self, image: np.ndarray) -> np.ndarray:
        """-> (3 side^2,) in [-1, 1]"""
        from PIL import Image

        small = Image.fromarray(image).resize((self.side, self.side), Image.Resampling.BOX)
        return np.asarray(small, dtype=np.float64).ravel() / 127.5 - 1


class ClipFeatures(ClipUser, FeatureMaker):
    """Unit vectors of a CLIP; CMMD was published with OpenAI's ViT-L-14 at 336 pixels."""

    Options = MetricClip

    @classmethod
    def load(cls, options: MetricClip, resolve: Resolve, device: str) -> "ClipExtractor":
        """In float32."""
        return ClipExtractor(load_clip_source(options, resolve, device, rows_per_forward=options.images_per_forward))


class ClipExtractor:
    """Implements the Extractor protocol."""

    def __init__(self, embedder: Any) -> None:
        self.embedder = embedder

    def embed(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Images (H, W, 3) uint8 -> (N, D) float32 of length 1"""
        return self.embedder.embed_images(list(images)).cpu().numpy()


class CachedExtractor:
    """Remembers features in a folder that runs may share, by extractor and pixels; a batch of images is one file."""

    def __init__(self, extractor: Extractor, folder: Path, mark: str) -> None:
        self.extractor, self.folder, self.mark = extractor, folder, mark

    def embed(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Images (H, W, 3) uint8 -> (N, D) float32"""
        digest = hashlib.sha256(self.mark.encode())
        for image in images:
            digest.update(f"{image.shape}".encode() + hashlib.sha256(image.tobytes()).digest())
        path = self.folder / f"{digest.hexdigest()}.npy"
        try:
            kept = np.load(regular_file(path))
            if kept.dtype.kind == "f" and kept.ndim == 2 and len(kept) == len(images) and np.isfinite(kept).all():
                return kept
            log.warning("feature cache: %s holds no features of %d images; measured again", path, len(images))
        except FileNotFoundError:
            pass
        except (*MALFORMED, OSError, BadZipFile) as error:
            log.warning("feature cache: %s cannot be read (%s); measured again", path, error)
        features = self.extractor.embed(images)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomic(path, npy_bytes(features))
        except OSError as error:  # costs the cache, not the run
            log.warning("feature cache: cannot write %s (%s)", path, error.strerror)
        return features


def extractor_mark(settings: FeatureSettings, resolve: Resolve) -> str:
    """What features depend on, as one line of JSON: kind, options, content of files."""
    return json.dumps(settings.identity(resolve), sort_keys=True)
