"""The metric `pairs`: every image beside its partner in the reference, by all paired metrics of the table."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import AfterValidator, Field

from genloop.bounds import Count, Width
from genloop.config import LAUNCH, Settings
from genloop.factories import Resolve
from genloop.metrics.makers import Line, ScoreMaker, Tools
from genloop.metrics.paired.pixels import Pixels
from genloop.metrics.paired.table import INFINITE, NAMES, Compute, PairMetric, pair_metrics
from genloop.metrics.scores import mean_line
from genloop.models.perceptual.config import LEAST_SIDE
from genloop.models.perceptual.load import load_dists, load_lpips, needed
from genloop.registry import did_you_mean

LEARNT = {  # by networks whose weights are given
    "lpips": PairMetric(None, "lower", 0.0, INFINITE, 0.0, min_side=LEAST_SIDE),
    "dists": PairMetric(None, "lower", -1.0, 2.0, 0.0, min_side=LEAST_SIDE),
}
_ALL = (*NAMES, *LEARNT)
_PIXELS_AT_A_TIME = 1 << 15  # their intermediate values stay in a cache

# Bytes. glibc, once an array of this size was freed, keeps twice as much for later arrays (mallopt(3), "dynamic mmap
# threshold"). Before, it gives each one back to the system, and fresh pages cost half as much again as the numbers.
_KEPT = 1 << 24


def _known(names: list[str]) -> list[str]:
    if not names:
        raise ValueError(f"name at least one of {', '.join(_ALL)}")
    for name in names:
        if name not in _ALL:
            raise ValueError(f"unknown paired metric {name!r}{did_you_mean(name, _ALL)} ({', '.join(_ALL)})")
    return list(dict.fromkeys(names))


class PairWeights(Settings):
    """Keys of `metrics.pairs.weights`: files as published, .pth, .pt or .safetensors; fingerprinted by content."""

    lpips: Annotated[Path | None, LAUNCH] = Field(None, description="linear heads of the package lpips, alex or vgg")
    dists: Annotated[Path | None, LAUNCH] = Field(None, description="alpha and beta of DISTS")
    alexnet: Annotated[Path | None, LAUNCH] = Field(None, description="torchvision's, for heads of alex")
    vgg16: Annotated[Path | None, LAUNCH] = Field(None, description="torchvision's, for DISTS and heads of vgg")

    def files(self) -> dict[str, Path]:
        """Those that are given."""
        return {key: path for key, path in self if path is not None}


class PairOptions(Settings):
    """Keys of `metrics.pairs`."""

    of: Annotated[list[str], AfterValidator(_known)] = Field(list(NAMES), description="which paired metrics")
    size: Width | None = Field(None, ge=16, description="side in pixels of both images, by Lanczos; null: as they are")
    scales: Count = Field(5, le=5, description="of MS-SSIM; 5 as published needs images of 176 pixels")
    weights: PairWeights = Field(
        PairWeights(), description="of lpips and dists, which are measured where they are given"
    )

    def chosen(self) -> dict[str, PairMetric]:
        """In the order in which they were asked for, then those whose weights are given."""
        known = pair_metrics(self.scales) | LEARNT
        given = [name for name in LEARNT if name in self.weights.files()]
        return {name: known[name] for name in dict.fromkeys([*self.of, *given])}

    def learnt(self) -> dict[str, dict[str, Path]]:
        """{metric: its files}, shapes compared; ValueError or FileNotFoundError for one that lacks."""
        found = {}
        for name in (name for name in self.chosen() if name in LEARNT):
            try:
                found[name] = needed(name, self.weights.files())
            except ValueError as error:
                raise ValueError(f"metrics.pairs: {error}") from None
            except FileNotFoundError as error:
                raise FileNotFoundError(f"metrics.pairs: {error}") from None
        return found

    def min_sides(self) -> dict[str, int]:
        """{paired metric: pixels that its images need}"""
        return {name: metric.min_side for name, metric in self.chosen().items()}


class ImagePairs(ScoreMaker):
    """The maker of the metric. A row's score is {side: {paired metric: value}}, of its image and of the other sides."""

    Options = PairOptions
    needs = frozenset({"reference", "pairs"})

    @classmethod
    def check(cls, options: PairOptions, resolve: Resolve) -> None:
        """The files of learnt metrics."""
        options.learnt()

    @classmethod
    def inputs(cls, options: PairOptions, resolve: Resolve) -> dict[str, Path]:
        """The same."""
        return {f"weights.{key}": path for files in options.learnt().values() for key, path in files.items()}

    @classmethod
    def load(cls, options: PairOptions, tools: Tools) -> "PairedMetrics":
        """With the networks of learnt metrics on the device."""
        return PairedMetrics(options, tools.device)

    @classmethod
    def conclude(cls, options: PairOptions, name: str, rows: Sequence[Mapping[str, Any]], seed: int) -> list[Line]:
        """The mean of every paired metric, of the images and of every other side."""
        sides = list(dict.fromkeys(side for row in rows for side in row["scores"].get(name, ())))
        lines = []
        for metric in options.chosen():
            for side in sides:
                values = [row["scores"].get(name, {}).get(side, {}).get(metric) for row in rows]
                lines.append(mean_line(metric if side == "images" else f"{metric}, {side}", rows, values, seed))
        return lines


class PairedMetrics:
    """Compares candidates with references."""

    def __init__(self, options: PairOptions, device: str = "cpu") -> None:
        self.options = options
        learnt = {name: _learnt(name, files, device) for name, files in options.learnt().items()}
        self.compute = {name: metric.compute or learnt[name] for name, metric in options.chosen().items()}
        np.empty(_KEPT, dtype=np.uint8)

    def compare(
        self, candidates: Sequence[np.ndarray], references: Sequence[np.ndarray]
    ) -> list[dict[str, float | None]]:
        """Images (H, W, 3) uint8, pair by pair -> {paired metric: value} of each; None where it has none."""
        if self.options.size is not None:
            candidates, references = (
                [resized(i, self.options.size) for i in side] for side in (candidates, references)
            )
        found: list[dict[str, float | None]] = [{} for _ in candidates]
        sizes: dict[tuple[int, ...], list[int]] = {}
        for place, (one, other) in enumerate(zip(candidates, references, strict=True)):
            if one.shape != other.shape:
                raise ValueError(f"images of {one.shape[:2]} and {other.shape[:2]} pixels cannot be compared")
            sizes.setdefault(one.shape, []).append(place)
        for shape, places in sizes.items():
            step = max(1, _PIXELS_AT_A_TIME // (shape[0] * shape[1]))
            for start in range(0, len(places), step):
                part = places[start : start + step]
                sides = [Pixels(np.stack([side[place] for place in part])) for side in (candidates, references)]
                for name, compute in self.compute.items():
                    for place, value in zip(part, compute(sides[0], sides[1]).tolist()):
                        found[place][name] = value if np.isfinite(value) else None
        return found


def _learnt(name: str, files: Mapping[str, Path], device: str) -> Compute:
    model = (load_lpips if name == "lpips" else load_dists)(files, device)
    return lambda candidates, references: model.distances(candidates.images, references.images)


def resized(image: np.ndarray, size: int) -> np.ndarray:
    """(H, W, 3) -> (size, size, 3) uint8"""
    from PIL import Image

    if image.shape[:2] == (size, size):
        return image
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.LANCZOS))
