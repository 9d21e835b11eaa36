"""What can be checked about an edited image without a judge. H, W = pixels; images are (H, W, 3) uint8 of one size."""

from collections.abc import Callable, Mapping

import numpy as np

from genloop.data.editing.lines import canny_lines
from genloop.metrics.paired.pixels import Pixels
from genloop.metrics.paired.structure import ssim

TOLERANCE = 2  # pixels between an edge and its like


def edit_checks(
    image: np.ndarray,
    picture: np.ndarray,
    mask: np.ndarray | None,
    maps: Mapping[str, np.ndarray],
    depth: Callable[[np.ndarray], np.ndarray] | None,
) -> dict[str, float | None]:
    """Every check that an edited image allows: against the picture, outside of a mask, against control maps by name.

    `depth` estimates that of the image; None: it is not checked.
    """
    found = {"similarity": similarity(image, picture)}
    if mask is not None:
        found["outside_psnr"] = outside_psnr(image, picture, mask)
    if "line" in maps:
        found["edge_f1"] = edge_f1(image, maps["line"])
    if "depth" in maps and depth is not None:
        found["depth_correlation"] = depth_correlation(depth(image), maps["depth"])
    return {name: None if value is None else round(value, 6) for name, value in found.items()}


def outside_psnr(image: np.ndarray, picture: np.ndarray, mask: np.ndarray) -> float | None:
    """PSNR in dB of the pixels where `mask` (H, W) is False; None where there are none, or all are equal."""
    difference = image[~mask].astype(np.float64) - picture[~mask]
    error = float((difference**2).mean()) if difference.size else 0.0
    return 10 * float(np.log10(255**2 / error)) if error > 0 else None


def edge_f1(image: np.ndarray, lines: np.ndarray) -> float | None:
    """F1 of the image's Canny edges against a line map, each matched within `TOLERANCE` pixels; None without lines."""
    found, wanted = canny_lines(image)[..., 0] > 127, lines.max(axis=2) > 127
    if not wanted.any():
        return None
    if not found.any():
        return 0.0
    precision = float((found & _wider(wanted)).sum() / found.sum())
    recall = float((wanted & _wider(found)).sum() / wanted.sum())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def depth_correlation(depth: np.ndarray, wanted: np.ndarray) -> float | None:
    """Pearson's correlation of two depth maps; None where one of them is flat."""
    x, y = depth[..., 0].astype(np.float64).ravel(), wanted.mean(axis=2).ravel()
    if x.std() == 0 or y.std() == 0:
        return None
    return float(np.corrcoef(x, y)[0, 1])


def similarity(image: np.ndarray, picture: np.ndarray) -> float | None:
    """SSIM of luma with the picture that was edited; None where a side is shorter than its window of 11."""
    if min(image.shape[:2]) < 11:
        return None
    return float(ssim(Pixels(image[None]), Pixels(picture[None]))[0])


def _wider(edges: np.ndarray) -> np.ndarray:
    """(H, W) bool: within `TOLERANCE` pixels of an edge."""
    from scipy.ndimage import binary_dilation

    return np.asarray(binary_dilation(edges, np.ones((2 * TOLERANCE + 1,) * 2, dtype=bool)))
