"""Requests to edit a picture: the keys of a config, or one JSON object a line of a work list. No torch.

The keys are those of the released Qwen2vl-Flux (mode, input_image, prompt, reference_image, mask_image, image_count,
aspect_ratio, steps, guidance_scale, denoise_strength, center_x, center_y, radius, line_mode, depth_mode, line_strength,
depth_strength) and ours. A key that a mode does not use is refused, never ignored.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from genloop.bounds import Offset, Repeats, Share, Total, Weight
from genloop.config import ConfigError, InputPath, Settings, parse_settings, refusal
from genloop.models.flux_edit.needs import MODES, Mode, Wish, has_mask, is_controlled
from genloop.models.flux_edit.sizes import MAX_PIXELS, RATIOS
from genloop.reading import parse_json, read_utf8

Point = tuple[Offset, Offset, Literal[0, 1]]


class EditKeys(Settings):
    """One request. Paths are relative to the current folder."""

    mode: Mode = Field("variation", description=", ".join(MODES))
    input_image: InputPath | None = Field(None, description="the picture")
    prompt: str = Field("", description="read by T5; the picture itself is read by Qwen2-VL")
    reference_image: InputPath | None = Field(
        None, description="the picture whose content is drawn into `input_image`; not for variation"
    )
    mask_image: InputPath | None = Field(None, description="white where to paint; for the inpaint modes")
    mask_points: tuple[Point, ...] = Field(
        (), description="instead of a mask: x, y, 1 inside or 0 outside; needs SAM 2"
    )
    mask_box: tuple[Offset, Offset, Offset, Offset] | None = Field(None, description="left, top, right, bottom")
    image_count: Repeats = Field(1, description="images; each is searched for on its own")
    aspect_ratio: str | None = Field(None, description=f"{', '.join(RATIOS)}; of a variation, 1:1 by default")
    max_pixels: Total = Field(MAX_PIXELS, description="of an image; larger pictures are scaled down")
    steps: Repeats = Field(28, description="denoising steps")
    guidance_scale: Weight = Field(3.5, description="that the model is told; the released command line has 7.5")
    denoise_strength: Share = Field(0.8, gt=0, description="1: nothing of the picture's pixels stays")
    center_x: Share | None = Field(None, description="of the focus, from the left; with center_y and radius")
    center_y: Share | None = Field(None, description="of the focus, from the top")
    radius: Share | None = Field(None, description="of the focus, as a share of the shorter side")
    focus: Literal["exact", "published"] = Field("exact", description="published: measured at the corners of cells")
    line_mode: bool = Field(False, description="a control by lines; for the controlnet modes")
    depth_mode: bool = Field(False, description="a control by depth")
    line_strength: Weight = Field(0.4, description="of the control by lines")
    depth_strength: Weight = Field(0.2, description="of the control by depth")
    line: Literal["canny", "lineart", "anyline"] = Field(
        "canny", description="how lines are found; anyline has weights"
    )
    line_image: InputPath | None = Field(None, description="a line map in place of one that is found")
    depth_image: InputPath | None = Field(None, description="a depth map, bright is near")
    image_tokens: Repeats | None = Field(
        None, description="of a picture, about; null: 256 with a prompt, 512 without, as released"
    )
    paste: bool = Field(True, description="inpaint modes: pixels outside of the mask are the picture's own")

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        if self.aspect_ratio is not None and self.aspect_ratio not in RATIOS:
            raise refusal(f"aspect_ratio: {self.aspect_ratio!r} is not one of {', '.join(RATIOS)}")
        focus = (self.center_x, self.center_y, self.radius)
        if any(part is None for part in focus) and any(part is not None for part in focus):
            raise refusal("radius: a focus needs center_x, center_y and radius")
        if self.radius == 0:
            raise refusal("radius: needs a number above 0")
        for key, why in self._unused().items():
            raise refusal(f"{key}: mode={self.mode} does not use it ({why})")
        return self

    def _unused(self) -> dict[str, str]:
        """Keys that were given and that the mode does not use, and who uses them."""
        found: dict[str, str] = {}
        if self.mode == "variation":
            found |= {key: "a variation has no picture under it" for key in ("reference_image",) if self._has(key)}
        elif self.aspect_ratio is not None:
            found["aspect_ratio"] = "its images have the picture's ratio"
        if self.mode != "variation" and self.radius is not None and self.reference_image is None:
            found["radius"] = "its focus is on the reference picture, and there is none"
        if not has_mask(self.mode):
            keys = ("mask_image", "mask_points", "mask_box")
            found |= {key: "only the inpaint modes have a mask" for key in keys if self._has(key)}
        if not is_controlled(self.mode):
            controls = ("line_mode", "depth_mode", "line_image", "depth_image")
            found |= {key: "only the controlnet modes have controls" for key in controls if self._has(key)}
        return found

    def _has(self, key: str) -> bool:
        return getattr(self, key) not in (None, False, ())

    @property
    def has_line(self) -> bool:
        """Whether lines control it: asked for, or a map given."""
        return self.line_mode or self.line_image is not None

    @property
    def has_depth(self) -> bool:
        """Whether depth controls it."""
        return self.depth_mode or self.depth_image is not None

    @property
    def wish(self) -> Wish:
        """What decides which components it needs."""
        return Wish(
            self.mode,
            has_prompt=bool(self.prompt),
            line=self.line if self.line_mode and self.line_image is None else None,
            depth=self.depth_mode and self.depth_image is None,
            mask_from_points=bool(self.mask_points) or self.mask_box is not None,
        )

    def check(self) -> None:
        """What the mode cannot do without, and files; ValueError or FileNotFoundError that begins with the key."""
        if self.input_image is None:
            raise ValueError("input_image: needs a picture")
        if has_mask(self.mode) and not (self.mask_image or self.wish.mask_from_points):
            raise ValueError(f"mask_image: mode={self.mode} needs a mask, or mask_points or mask_box")
        if is_controlled(self.mode) and not (self.has_line or self.has_depth):
            raise ValueError(f"mode: {self.mode} needs a control: line_mode, depth_mode, line_image or depth_image")
        for key, path in self.files().items():
            if not path.is_file():
                raise FileNotFoundError(f"{key}: there is no file {path}")

    def files(self) -> dict[str, Path]:
        """{key: picture} of those that are given."""
        keys = ("input_image", "reference_image", "mask_image", "line_image", "depth_image")
        return {key: path for key in keys if (path := getattr(self, key)) is not None}


def read_requests(path: Path, defaults: Sequence[tuple[str, Any]]) -> list[EditKeys]:
    """A work list, one JSON object a line, its keys before those of `defaults`; ValueError names file and line."""
    found = []
    for number, line in enumerate(read_utf8(path).split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            own = parse_json(line)
            if not isinstance(own, dict):
                raise ValueError("expected a JSON object")
            request = parse_settings(EditKeys, dict(defaults) | own)
            request.check()
        except (ConfigError, ValueError, FileNotFoundError) as error:
            raise ValueError(f"{where}: {error}") from None
        found.append(request)
    if not found:
        raise ValueError(f"{path}: holds no request")
    return found
