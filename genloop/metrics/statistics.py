"""Features of a set of images, in memory and as files that later runs are compared with. N = images, D = features."""

import io
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from genloop.data.shards import MALFORMED
from genloop.metrics.set_distances import Gaussian
from genloop.reading import regular_file
from genloop.rundir import write_atomic

_ROUNDING = 1e-6  # of the largest value
Block = tuple[np.ndarray, np.ndarray]  # features (N, D), cluster of each (N,)


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
    if strange := [key for key, values in numbers.items() if not np.isfinite(values).all()]:
        raise ValueError(f"{path}: {strange[0]} holds values that are no numbers; make the statistics again")
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
    gaussian = Gaussian(found["mu"].astype(np.float64), found["sigma"].astype(np.float64))
    _check_covariance(path, gaussian.covariance)
    return gaussian


def size_of(statistics: Features | Gaussian) -> int:
    """Numbers an image."""
    return len(statistics.mean) if isinstance(statistics, Gaussian) else statistics.whole[0].shape[1]


def _check_covariance(path: Path, sigma: np.ndarray) -> None:
    """ValueError for (D, D) numbers that are no covariance; rounding, also to float32, is none of that."""
    scale = float(np.abs(sigma).max(initial=0.0))
    if np.abs(sigma - sigma.T).max(initial=0.0) > _ROUNDING * scale:
        raise ValueError(f"{path}: sigma is no covariance: it is not symmetric; make the statistics again")
    if (lowest := float(np.linalg.eigvalsh(sigma)[0])) < -_ROUNDING * len(sigma) * scale:
        raise ValueError(
            f"{path}: sigma is no covariance: in one direction its variance is {lowest:.3g}, below 0; make the "
            "statistics again"
        )


def _arrays(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Those of the arrays that an .npz has; ValueError for another or a torn file."""
    try:
        with np.load(regular_file(path), allow_pickle=False) as file:
            return {name: file[name] for name in names if name in file.files}
    except (*MALFORMED, OSError, RuntimeError, BadZipFile, zlib.error) as error:
        raise ValueError(f"{path}: not a file of statistics ({error})") from None


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
