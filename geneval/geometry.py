"""Boxes: overlap and relative position, in float32 as GenEval computes them. A box is (x1, y1, x2, y2) in pixels."""

import numpy as np

Box = np.ndarray  # (4,) float32


def relative_position(box: Box, target: Box, dead_zone: float) -> tuple[str, ...]:
    """Where `box` lies as seen from `target`: none, one or two relations, the horizontal one first; image y runs down.

    A centre offset within `dead_zone` times the sum of the two sizes counts as none; a direction counts when it is
    within 60 degrees of the axis. Both boxes (4,) float32.
    """
    offset = _center(box) - _center(target)
    sizes = np.abs(box[2:] - box[:2]) + np.abs(target[2:] - target[:2])
    clear = np.sign(offset) * np.maximum(np.abs(offset) - np.float32(dead_zone) * sizes, np.float32(0))
    if np.all(np.abs(clear) < 1e-3):
        return ()
    x, y = clear / np.linalg.norm(offset)
    found = (("left of", x < -0.5), ("right of", x > 0.5), ("above", y < -0.5), ("below", y > 0.5))
    return tuple(relation for relation, holds in found if holds)


def iou(box: Box, others: np.ndarray) -> np.ndarray:
    """Intersection over union of (4,) with (N, 4) -> (N,); sizes count both border pixels (+ 1)."""
    low = np.maximum(box[:2], others[:, :2])
    high = np.minimum(box[2:], others[:, 2:])
    common = _area(low, high)
    union = _area(box[:2], box[2:]) + _area(others[:, :2], others[:, 2:]) - common
    return np.divide(common, union, out=np.zeros_like(common), where=union != 0)


def _center(box: Box) -> np.ndarray:
    return (box[:2] + box[2:]) / np.float32(2)


def _area(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    sizes = np.maximum(high - low + np.float32(1), np.float32(0))
    return sizes[..., 0] * sizes[..., 1]
