"""`colors=clip`: GenEval's colours, named by CLIP (Radford et al. 2021). What it needs, without loading anything.

The crop of an object is compared with three sentences for each of ten colours. GenEval takes OpenAI's ViT-L-14:

    colors.kind=clip colors.options.checkpoint=FOLDER
    colors.kind=clip colors.options.checkpoint=FOLDER colors.options.backend=transformers
"""

from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, Field

from geneval.colors.crops import ORIGINAL, color_value
from geneval.settings import PartMaker
from genloop.bounds import Count
from genloop.config import LAUNCH
from genloop.factories import Resolve
from genloop.metrics.clip_source import ClipSource, ClipUser, load_clip_source
from genloop.models.clip.config import OPENAI, Precision

if TYPE_CHECKING:
    from geneval.colors.zero_shot import ClipColors


def _known(background: str) -> str:
    if background != ORIGINAL:
        color_value(background)
    return background


class ClipOptions(ClipSource):
    """Which CLIP, and how an object is shown to it; the defaults are GenEval's."""

    architecture: str | None = Field("ViT-L-14", description="open_clip's name of it; null: what the folder says")
    pretrained: str | None = Field(OPENAI, description="tag of the weights; openai: QuickGELU is forced and checked")
    background: Annotated[str, AfterValidator(_known)] = Field(
        "#999", description=f"colour of what is not the object; {ORIGINAL}: left as it is"
    )
    crop: bool = Field(True, description="cut the image to the object's box")
    precision: Precision = Field("float32", description="autocast_float16: as GenEval computes on a GPU")
    crops_per_forward: Annotated[Count, LAUNCH] = Field(64, ge=8, description="crops in one forward pass of a GPU")


class ClipColorMaker(ClipUser, PartMaker):
    """Makes the classifier that compares crops with sentences."""

    Options = ClipOptions

    @classmethod
    def load(cls, options: ClipOptions, resolve: Resolve, device: str) -> "ClipColors":
        from geneval.colors.zero_shot import ClipColors

        rows, precision = options.crops_per_forward, options.precision
        embedder = load_clip_source(options, resolve, device, rows_per_forward=rows, precision=precision)
        return ClipColors(embedder, background=options.background, to_box=options.crop)
