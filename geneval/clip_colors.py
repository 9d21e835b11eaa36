"""`colors=clip`: GenEval's colours, named by CLIP (Radford et al. 2021). What it needs, without loading anything.

The crop of an object is compared with three sentences for each of ten colours. GenEval takes OpenAI's ViT-L-14:

    colors.kind=clip colors.options.checkpoint=FOLDER
    colors.kind=clip colors.options.checkpoint=FOLDER colors.options.backend=transformers
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field

from geneval.crops import ORIGINAL, color_value
from geneval.settings import PartMaker, Resolve
from genloop.config import LAUNCH, Settings
from genloop.models.clip_config import (
    OPENAI,
    Precision,
    check_clip_folder,
    check_transformers_folder,
    is_transformers_folder,
)
from genloop.registry import check_installed

if TYPE_CHECKING:
    from geneval.clip_colors_zero_shot import ClipColors


def _known(background: str) -> str:
    if background != ORIGINAL:
        color_value(background)
    return background


class ClipOptions(Settings):
    """Which CLIP, and how an object is shown to it; the defaults are GenEval's."""

    checkpoint: Annotated[str, LAUNCH] = Field(description="a folder with the weights")
    backend: Literal["open_clip", "transformers"] = Field("open_clip", description="whose layout the folder has")
    architecture: str | None = Field("ViT-L-14", description="open_clip's name of it; null: what the folder says")
    pretrained: str | None = Field(OPENAI, description="tag of the weights; openai: QuickGELU is forced and checked")
    background: Annotated[str, AfterValidator(_known)] = Field(
        "#999", description=f"colour of what is not the object; {ORIGINAL}: left as it is"
    )
    crop: bool = Field(True, description="cut the image to the object's box")
    precision: Precision = Field("float32", description="autocast_float16: as GenEval computes on a GPU")
    crops_per_batch: Annotated[int, LAUNCH] = Field(64, ge=8, description="crops in one forward pass")


class Clip(PartMaker):
    """Makes the classifier that compares crops with sentences."""

    Options = ClipOptions

    @classmethod
    def check(cls, options: ClipOptions, resolve: Resolve) -> None:
        """The folder's config and headers, the activation, and the package."""
        folder = resolve(options.checkpoint)
        if options.backend == "transformers":
            check_transformers_folder(folder, options.architecture, options.pretrained)
            return
        if is_transformers_folder(folder):
            raise ValueError(f"{folder} has the layout of transformers; use backend=transformers")
        check_clip_folder(folder, options.architecture)
        check_installed("open_clip", "clip")

    @classmethod
    def inputs(cls, options: ClipOptions, resolve: Resolve) -> dict[str, Path]:
        """The weights."""
        return {"checkpoint": resolve(options.checkpoint)}

    @classmethod
    def load(cls, options: ClipOptions, resolve: Resolve, device: str) -> "ClipColors":
        """On `device`."""
        from geneval.clip_colors_zero_shot import ClipColors
        from genloop.models.clip import load_clip
        from genloop.models.clip_transformers import load_clip_transformers

        read = load_clip_transformers if options.backend == "transformers" else load_clip
        embedder = read(
            resolve(options.checkpoint),
            architecture=options.architecture,
            published_as=options.pretrained,
            device=device,
            rows_per_forward=options.crops_per_batch,
            precision=options.precision,
        )
        return ClipColors(embedder, background=options.background, to_box=options.crop)
