"""Which components a request needs, and no more. A table: mode and options -> components, in the stages they work in.

encode      Qwen2-VL with the connector, T5 with its embedder, CLIP, the annotators; freed before the next stage
denoise     transformer, ControlNet
decode      the VAE, which also encodes the picture that a mode starts from
"""

from dataclasses import dataclass
from typing import Literal

Mode = Literal["variation", "img2img", "inpaint", "controlnet", "controlnet-inpaint"]
MODES: tuple[Mode, ...] = ("variation", "img2img", "inpaint", "controlnet", "controlnet-inpaint")
Line = Literal["canny", "lineart", "anyline"]
STAGES = {
    "encode": ("qwen", "connector", "t5", "clip", "depth", "anyline", "sam2"),
    "denoise": ("transformer", "t5_embedder", "controlnet"),
    "decode": ("vae",),
}
COMPONENTS = tuple(name for stage in STAGES.values() for name in stage)


@dataclass(frozen=True, slots=True)
class Wish:
    """What decides which components a request needs."""

    mode: Mode
    has_prompt: bool = False  # T5 reads it; CLIP always reads the empty text
    line: Line | None = None  # how lines are found; None: no line control, or its map was given
    depth: bool = False  # whether depth has to be estimated
    mask_from_points: bool = False


def needed(wish: Wish) -> tuple[str, ...]:
    """Components in the order of `COMPONENTS`."""
    wanted = {"qwen", "connector", "clip", "transformer", "vae"}
    if wish.has_prompt:
        wanted |= {"t5", "t5_embedder"}
    if is_controlled(wish.mode):
        wanted |= {"controlnet"}
        wanted |= {"depth"} if wish.depth else set()
        wanted |= {"anyline"} if wish.line == "anyline" else set()
    if wish.mask_from_points:
        wanted |= {"sam2"}
    return tuple(name for name in COMPONENTS if name in wanted)


def is_controlled(mode: Mode) -> bool:
    """Whether a ControlNet takes part."""
    return mode.startswith("controlnet")


def has_mask(mode: Mode) -> bool:
    """Whether a part of the picture stays."""
    return mode.endswith("inpaint")
