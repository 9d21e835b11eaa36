"""A request's pictures, masks and control maps, all of one size. H, W = pixels."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from genloop.data.editing.lines import LINES, with_thin_lines
from genloop.data.image_reader import read_image
from genloop.models.flux_edit.drawing import Control, Drawing, Focus
from genloop.models.flux_edit.focus import focus_picture
from genloop.models.flux_edit.needs import has_mask, is_controlled
from genloop.models.flux_edit.sizes import fitting_size, ratio_size
from genloop.sampling.flux_edit.requests import EditKeys

if TYPE_CHECKING:
    from genloop.models.flux_edit.annotators import Annotators

ANYLINE_SIDE = 1280


@dataclass(frozen=True, slots=True, eq=False)
class PreparedEdit:
    """What a request comes to before a model conditions on it."""

    request: EditKeys
    drawing: Drawing
    original: np.ndarray  # the picture as it was read (H, W, 3) uint8
    reference: np.ndarray | None
    notes: tuple[str, ...]  # what was changed about the input

    @property
    def seen(self) -> np.ndarray:
        """(H, W, 3) uint8: the picture in the size of the images; that of a variation is stretched to it."""
        picture = self.drawing.picture
        return _resized(self.original, self.drawing.size) if picture is None else picture

    @property
    def focus(self) -> Focus | None:
        """Where the request looks, on the picture of a variation and on the reference of the other modes."""
        request = self.request
        if request.center_x is None or request.center_y is None or request.radius is None:
            return None
        return Focus(request.center_x, request.center_y, request.radius, request.focus == "published")


def given_pictures(prepared: PreparedEdit, grid: tuple[int, int]) -> dict[str, np.ndarray]:
    """What the model was given, by name, each (H, W, 3) uint8.

    `grid`: rows and columns of the tokens that the transformer reads, each as bright as the focus lets it count.
    """
    drawing = prepared.drawing
    pictures: dict[str, np.ndarray] = {"picture": prepared.original if drawing.picture is None else drawing.picture}
    if prepared.reference is not None:
        pictures["reference"] = prepared.reference
    if drawing.mask is not None:
        pictures["mask"] = np.repeat(drawing.mask[..., None], 3, axis=2).astype(np.uint8) * 255
    pictures |= {control.name: control.map for control in drawing.controls}
    if prepared.focus is not None:
        seen = prepared.original if prepared.reference is None else prepared.reference
        pictures["focus"] = focus_picture(seen, grid, prepared.focus)
    return pictures


def prepare(request: EditKeys, annotators: "Annotators") -> PreparedEdit:
    """Read and size everything; ValueError that begins with the key for what cannot be used."""
    original = _read("input_image", request.input_image)
    notes: list[str] = []
    size = drawn_size(request, original.shape[1], original.shape[0])
    if request.mode == "variation":
        return PreparedEdit(request, _drawing(request, size), original, None, ())
    picture = _resized(original, size)
    if size != (original.shape[1], original.shape[0]):
        notes.append(f"input_image: {_words(original)} was resized to {size[0]}x{size[1]}")
    mask = _mask(request, original, size, annotators, notes) if has_mask(request.mode) else None
    controls = _controls(request, picture, annotators, notes) if is_controlled(request.mode) else ()
    reference = None if request.reference_image is None else _read("reference_image", request.reference_image)
    drawing = _drawing(request, size, picture=picture, mask=mask, controls=controls)
    return PreparedEdit(request, drawing, original, reference, tuple(notes))


def drawn_size(request: EditKeys, width: int, height: int) -> tuple[int, int]:
    """(width, height) of the images of a request for a picture of this size."""
    if request.mode == "variation":
        return ratio_size(request.aspect_ratio or "1:1", max_pixels=request.max_pixels)
    try:
        return fitting_size(width, height, max_pixels=request.max_pixels)
    except ValueError as error:
        raise ValueError(f"input_image: {error}") from None


def _drawing(request: EditKeys, size: tuple[int, int], **more: Any) -> Drawing:
    return Drawing(
        request.mode,
        size,
        steps=request.steps,
        guidance_scale=request.guidance_scale,
        strength=request.denoise_strength,
        paste=request.paste,
        **more,
    )


def _mask(
    request: EditKeys, original: np.ndarray, size: tuple[int, int], annotators: "Annotators", notes: list[str]
) -> np.ndarray:
    """(H, W) bool of the drawn size, resized with the picture."""
    if request.mask_image is None:
        found = annotators.mask(original, request.mask_points, request.mask_box)
    else:
        found = _read("mask_image", request.mask_image).max(axis=2) >= 128
        if found.shape != original.shape[:2]:
            notes.append(f"mask_image: {_words(found)} was resized with the picture of {_words(original)}")
    return _resized(found.astype(np.uint8) * 255, size, smooth=False) >= 128


def _controls(
    request: EditKeys, picture: np.ndarray, annotators: "Annotators", notes: list[str]
) -> tuple[Control, ...]:
    """Depth before lines, as released; maps of the sized picture, or given ones."""
    size, found = (picture.shape[1], picture.shape[0]), []
    if request.has_depth:
        given = _given_map("depth_image", request.depth_image, size, notes)
        depth = annotators.depth(picture) if given is None else given
        found.append(Control("depth", depth, request.depth_strength))
    if request.has_line:
        lines = _given_map("line_image", request.line_image, size, notes)
        if lines is None:
            lines = _anyline(picture, annotators) if request.line == "anyline" else LINES[request.line](picture)
        found.append(Control("line", lines, request.line_strength))
    return tuple(found)


def _anyline(picture: np.ndarray, annotators: "Annotators") -> np.ndarray:
    """(H, W, 3) uint8 -> (H, W, 3) uint8: edges and thin lines, found on the picture with its shorter side at 1,280."""
    height, width = picture.shape[:2]
    scale = ANYLINE_SIDE / min(height, width)
    large = _resized(picture, (round(width * scale / 64) * 64, round(height * scale / 64) * 64))
    return _resized(with_thin_lines(annotators.edges(large), large), (width, height))


def _given_map(key: str, path: Path | None, size: tuple[int, int], notes: list[str]) -> np.ndarray | None:
    if path is None:
        return None
    given = _read(key, path)
    if (given.shape[1], given.shape[0]) != size:
        notes.append(f"{key}: {_words(given)} was resized to {size[0]}x{size[1]}")
    return _resized(given, size)


def _read(key: str, path: Path | None) -> np.ndarray:
    assert path is not None, key
    try:
        return read_image(path)
    except ValueError as error:
        raise ValueError(f"{key}: {path}: {error}") from None


def _resized(pixels: np.ndarray, size: tuple[int, int], *, smooth: bool = True) -> np.ndarray:
    from PIL import Image

    how = Image.Resampling.LANCZOS if smooth else Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(pixels).resize(size, how))


def _words(pixels: np.ndarray) -> str:
    return f"{pixels.shape[1]}x{pixels.shape[0]}"
