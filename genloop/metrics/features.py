"""Features of images: what turns images into vectors, where the vectors are kept, how a set of them is saved.

N = images, D = features.
"""

import hashlib
import io
import json
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from pydantic import Field

from genloop.config import INPUT, Settings, computing_keys, marked
from genloop.factories import Resolve
from genloop.metrics.clip_source import ClipUser, MetricClip, load_clip_source
from genloop.metrics.makers import Extractor, FeatureMaker, FeatureSettings, feature_maker
from genloop.metrics.set_distances import Gaussian
from genloop.rundir import sha256_tree, write_atomic

Block = tuple[np.ndarray, np.ndarray]  # features (N, D), cluster of each (N,)


class PixelOptions(Settings):
    """Keys of features `pixels`."""

    side: int = Field(8, ge=1, description="pixels that an image is reduced to, a side")
    size: int = Field(64, ge=1, description="numbers an image")
    seed: int = Field(0, ge=0, description="of the projection")


class Pixels(FeatureMaker):
    """A random projection of a small copy of the image: needs no weights, sees colours and rough shapes."""

    Options = PixelOptions

    @classmethod
    def load(cls, options: PixelOptions, resolve: Resolve, device: str) -> "PixelExtractor":
        """It is the same on every device."""
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


class Clip(ClipUser, FeatureMaker):
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
            return np.load(path)
        except FileNotFoundError:
            features = self.extractor.embed(images)
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomic(path, npy_bytes(features))
            return features


class Features:
    """The features of a set of images, in parts that are read when they are needed; rows of NaN do not count."""

    def __init__(self, parts: Sequence[Callable[[], Block]]) -> None:
        self._parts = parts

    def blocks(self) -> Iterator[Block]:
        """(N, D) float32 and clusters (N,), one part after the other; a part without any image that could be read has
        D = 0 and is left out.
        """
        for part in self._parts:
            rows, clusters = part()
            known = ~np.isnan(rows).any(axis=1)
            if rows.shape[1] and known.any():
                yield rows[known], clusters[known]

    @cached_property
    def whole(self) -> Block:
        """All of them; ValueError when there are none."""
        blocks = list(self.blocks())
        if not blocks:
            raise ValueError("no features: no image could be read")
        rows, clusters = zip(*blocks)
        return np.concatenate(rows), np.concatenate(clusters)


def extractor_mark(settings: FeatureSettings, resolve: Resolve) -> str:
    """What features depend on, as one line of JSON: kind, options, content of files."""
    maker, options = feature_maker(settings.kind), settings.options
    files = {key: path for key, path in marked(options, INPUT) if path is not None} | dict(
        maker.inputs(options, resolve)
    )
    contents = {key: sha256_tree(path) for key, path in sorted(files.items())}
    return json.dumps([settings.kind, computing_keys(options), contents], sort_keys=True)


def save_statistics(path: Path, features: Features, gaussian: Gaussian, mark: str) -> None:
    """An .npz that serves as a reference: features, clusters, moments (mu, sigma), and what made them."""
    rows, clusters = features.whole
    stream = io.BytesIO()
    mu, sigma = gaussian
    np.savez(stream, features=rows, clusters=clusters, extractor=np.array(mark), mu=mu, sigma=sigma)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, stream.getvalue())


def read_statistics(path: Path, mark: str) -> Features | Gaussian:
    """What `save_statistics` wrote with the same extractor, or another tool's mu and sigma; ValueError for others."""
    found = _arrays(path, ("features", "clusters", "mu", "sigma", "extractor"))
    if "extractor" in found and str(found["extractor"]) != mark:
        raise ValueError(f"{path}: made with other features, {found['extractor']}; these are {mark}")
    numbers = {key: values for key, values in found.items() if key != "extractor"}
    if strange := [key for key, values in numbers.items() if values.dtype.kind not in "fiu"]:
        raise ValueError(f"{path}: {strange[0]} holds no numbers")
    if "features" in found and "clusters" in found:
        features, clusters = found["features"], found["clusters"]
        if features.ndim != 2 or clusters.shape != features.shape[:1] or not features.size:
            raise ValueError(
                f"{path}: features must be (N, D) and clusters (N,), found {features.shape}, {clusters.shape}"
            )
        return Features([lambda: (features, clusters)])
    if (
        "mu" not in found
        or "sigma" not in found
        or found["mu"].ndim != 1
        or found["sigma"].shape != 2 * found["mu"].shape
    ):
        raise ValueError(f"{path}: holds neither features and clusters nor mu (D,) and sigma (D, D)")
    if not all(np.isfinite(found[key]).all() for key in ("mu", "sigma")):
        raise ValueError(f"{path}: mu or sigma holds values that are no numbers; make the statistics again")
    return Gaussian(found["mu"].astype(np.float64), found["sigma"].astype(np.float64))


def _arrays(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Those of the arrays that an .npz has; ValueError for another or a torn file."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in names if name in file.files}
    except (ValueError, OSError, KeyError, EOFError, TypeError, BadZipFile) as error:  # TypeError: of an .npy
        raise ValueError(f"{path}: not a file of statistics ({error})") from None


def npy_bytes(array: np.ndarray) -> bytes:
    """An array as the content of an .npy file."""
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def has_statistics(path: Path) -> bool:
    """Whether a reference is a file of statistics, or a run that kept some; else it is a folder of images."""
    return path.suffix == ".npz" or (path / "statistics").is_dir()


def open_statistics(path: Path, mark: str) -> Features | Gaussian:
    """The statistics of a file, or those in a run that were made with the same extractor; ValueError for none."""
    if not (path / "statistics").is_dir():
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file")
        return read_statistics(path, mark)
    files = sorted((path / "statistics").glob("*.npz"))
    for file in files:
        if str(_arrays(file, ("extractor",)).get("extractor")) == mark:
            return read_statistics(file, mark)
    kept = ", ".join(file.name for file in files) or "nothing"
    raise ValueError(f"{path / 'statistics'}: no statistics of these features, {mark} (there is {kept})")
