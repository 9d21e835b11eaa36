"""The exact detector of the embedded world: colour labelling, connected components, template matching.

Every pixel gets the nearest of the ten colours or the background; the 8-connected components of each colour are
compared with the ten templates at nine shifts; the best intersection over union (IoU) is the class and the score.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from genloop.config import Settings
from genloop.factories import Maker, Resolve
from genloop.records import COLORS, Detection
from genloop.shapes.render import BACKGROUND, COLOR_VALUES, TEMPLATES
from genloop.shapes.scenes import SHAPES

MIN_PIXELS = 10  # smaller components are dust
MIN_SCORE = 0.75  # IoU with the best template
MAX_SIDE = 192  # pixels a side: eight times the world's, which has shapes of 7 pixels at any size of image
_AT_A_TIME = 1 << 18  # pixels
_CANVAS = 11  # a 7 x 7 template in the middle leaves two pixels on every side
_MARGIN = (_CANVAS - TEMPLATES.shape[1]) // 2
_IN_PLANE = np.array([np.zeros((3, 3)), np.ones((3, 3)), np.zeros((3, 3))], dtype=bool)  # neighbours within an image


@dataclass(frozen=True, slots=True)
class _Component:
    image: int
    box: tuple[int, int, int, int]  # x1, y1, x2, y2
    pixels: np.ndarray  # (y2 - y1, x2 - x1) bool


class ShapesDetector:
    """Finds the ten shapes and names their colours; implements the Detector and ColorClassifier protocols."""

    classes: Sequence[str] = SHAPES

    def detect(self, images: Sequence[np.ndarray]) -> list[list[Detection]]:
        """Images (H, W, 3) uint8 RGB, sizes may differ -> the detections of each, unsorted."""
        found: list[list[Detection]] = [[] for _ in images]
        by_size: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for i, image in enumerate(images):
            _check(image)
            by_size[image.shape].append(i)
        for shape, members in _groups(by_size):
            stack = np.stack([images[i] for i in members])
            for component, class_name, score in _match(_components(nearest_colors(stack))):
                x1, y1, x2, y2 = component.box
                mask = np.zeros(shape[:2], dtype=bool)
                mask[y1:y2, x1:x2] = component.pixels
                box = (float(x1), float(y1), float(x2), float(y2))
                found[members[component.image]].append(Detection(class_name, score, box, mask, int(mask.sum())))
        return found

    def scores(self, requests: Sequence[tuple[np.ndarray, Sequence[Detection]]]) -> list[np.ndarray]:
        """The share of each of the ten colours in a detection's mask, or box when it has none: (N, 10) float32 each.

        Of the background's colour there is none; an object of nothing else has zeros.
        """
        found = []
        for image, detections in requests:
            _check(image)
            labels = nearest_colors(image[None])[0]
            shares = [_shares(labels, detection) for detection in detections]
            found.append(np.array(shares, dtype=np.float32).reshape(-1, len(COLORS)))
        return found


class Shapes(Maker):
    """Makes that detector, as which it also names colours; there is nothing to choose and nothing to load."""

    @classmethod
    def classes(cls, options: Settings) -> Sequence[str]:
        return SHAPES

    @classmethod
    def check_size(cls, options: Settings, width: int, height: int) -> None:
        """ValueError for an image that is not of the world: shapes do not grow with it."""
        if max(width, height) > MAX_SIDE:
            span = TEMPLATES.shape[1]
            raise ValueError(
                f"{width} x {height} pixels; the exact detector finds shapes of {span} x {span} pixels on grey, in "
                f"images of up to {MAX_SIDE} x {MAX_SIDE}"
            )

    @classmethod
    def load(cls, options: Settings, resolve: Resolve, device: str) -> ShapesDetector:
        return ShapesDetector()


def nearest_colors(images: np.ndarray) -> np.ndarray:
    """(B, H, W, 3) uint8 -> (B, H, W) int8: index of the nearest colour in COLORS, -1 for background."""
    values = np.concatenate([np.array([BACKGROUND], dtype=np.float32), COLOR_VALUES.astype(np.float32)])  # (11, 3)
    pixels = images.reshape(-1, 3)
    labels = np.empty(len(pixels), dtype=np.int8)
    for start in range(0, len(pixels), _AT_A_TIME):
        part = pixels[start : start + _AT_A_TIME].astype(np.float32)
        closeness = part @ (2 * values.T) - (values**2).sum(axis=1)  # (P, 11): exact, all integers below 2**24
        labels[start : start + _AT_A_TIME] = closeness.argmax(axis=1) - 1
    return labels.reshape(images.shape[:-1])


def _groups(by_size: Mapping[tuple[int, ...], Sequence[int]]) -> Iterator[tuple[tuple[int, ...], Sequence[int]]]:
    """Images of one size that are looked at together: as many as have so many pixels, at least one."""
    for shape, members in by_size.items():
        step = max(1, _AT_A_TIME // max(1, shape[0] * shape[1]))
        for start in range(0, len(members), step):
            yield shape, members[start : start + step]


def _check(image: np.ndarray) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"an image must be (H, W, 3) uint8, found {image.shape} {image.dtype}")


def _components(labels: np.ndarray) -> list[_Component]:
    """(B, H, W) colour labels -> the components of one colour that could be an object."""
    found = []
    for color in range(len(COLORS)):
        of_color = labels == color
        if not of_color.any():
            continue
        numbered, _ = ndimage.label(of_color, structure=_IN_PLANE)
        for number, (plane, rows, columns) in enumerate(ndimage.find_objects(numbered), start=1):
            if rows.stop - rows.start > _CANVAS or columns.stop - columns.start > _CANVAS:
                continue
            pixels = numbered[plane.start, rows, columns] == number
            if pixels.sum() >= MIN_PIXELS:
                found.append(_Component(plane.start, (columns.start, rows.start, columns.stop, rows.stop), pixels))
    return found


def _match(components: Sequence[_Component]) -> list[tuple[_Component, str, float]]:
    """The components whose best IoU over templates and shifts reaches MIN_SCORE, with class and score."""
    if not components:
        return []
    canvases = np.zeros((len(components), _CANVAS, _CANVAS), dtype=np.float32)
    for canvas, component in zip(canvases, components, strict=True):
        height, width = component.pixels.shape
        top, left = (_CANVAS - height) // 2, (_CANVAS - width) // 2
        canvas[top : top + height, left : left + width] = component.pixels
    flat = canvases.reshape(len(components), -1)  # (M, 121)
    shared = flat @ _SHIFTED.T  # (M, 90)
    union = flat.sum(axis=1, keepdims=True) + _SHIFTED.sum(axis=1) - shared
    overlap = (shared / union).reshape(len(components), len(SHAPES), -1).max(axis=2)  # (M, 10)
    best = overlap.argmax(axis=1)
    scores = overlap[np.arange(len(components)), best]
    return [
        (component, SHAPES[shape], float(score))
        for component, shape, score in zip(components, best, scores, strict=True)
        if score >= MIN_SCORE
    ]


def _shares(labels: np.ndarray, detection: Detection) -> np.ndarray:
    """-> (10,) shares of the pixels that have a colour"""
    if detection.mask is not None:
        inside = labels[detection.mask]
    else:
        x1, y1, x2, y2 = (round(value) for value in detection.box)
        inside = labels[max(y1, 0) : max(y2, 0), max(x1, 0) : max(x2, 0)].ravel()
    counts = np.bincount(inside[inside >= 0], minlength=len(COLORS))
    return counts / max(1, counts.sum())


def _shifted_templates() -> np.ndarray:
    """(90, 121) float32: ten templates, each at nine shifts of the canvas's middle."""
    span = TEMPLATES.shape[1]
    canvas = np.zeros((len(SHAPES), 9, _CANVAS, _CANVAS), dtype=np.float32)
    for shift in range(9):
        top, left = _MARGIN + shift // 3 - 1, _MARGIN + shift % 3 - 1
        canvas[:, shift, top : top + span, left : left + span] = TEMPLATES
    return canvas.reshape(len(SHAPES) * 9, -1)


_SHIFTED = _shifted_templates()
