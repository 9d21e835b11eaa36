"""Which CLIP colours, a metric or a kind of features use: an open_clip folder, or one of transformers.

No torch until it is loaded.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from genloop.bounds import Count
from genloop.config import LAUNCH, Settings
from genloop.factories import Resolve
from genloop.models.clip.config import Precision, check_clip_folder, is_transformers_folder
from genloop.registry import check_installed

if TYPE_CHECKING:
    from genloop.models.clip.load import ClipEmbedder


class ClipSource(Settings):
    """Weights in either public layout."""

    checkpoint: Annotated[str, LAUNCH] = Field(description="name or folder, fingerprinted by content")
    backend: Literal["open_clip", "transformers"] = Field("open_clip", description="whose layout the folder has")
    architecture: str | None = Field(None, description="open_clip's name of it; null: what the folder says")
    pretrained: str | None = Field(None, description="tag of the weights; openai: QuickGELU is forced and checked")


class MetricClip(ClipSource):
    """The same for whole images."""

    images_per_forward: Annotated[Count, LAUNCH] = Field(64, ge=8, description="images in one forward pass of a GPU")


class ClipUser:
    """What all makers have in common whose options are a ClipSource."""

    @classmethod
    def check(cls, options: ClipSource, resolve: Resolve) -> None:
        """The folder's config and headers, the activation, and the package that reads it."""
        folder = resolve(options.checkpoint)
        if options.backend == "transformers":
            from genloop.models.clip.folder import check_transformers_folder

            check_transformers_folder(folder, options.architecture, options.pretrained)
            return
        if is_transformers_folder(folder):
            raise ValueError(f"{folder} has the layout of transformers; use backend=transformers")
        check_clip_folder(folder, options.architecture)
        check_installed("open_clip", "clip")

    @classmethod
    def inputs(cls, options: ClipSource, resolve: Resolve) -> dict[str, Path]:
        return {"checkpoint": resolve(options.checkpoint)}


def load_clip_source(
    options: ClipSource, resolve: Resolve, device: str, *, rows_per_forward: int, precision: Precision = "float32"
) -> "ClipEmbedder":
    """With weights in float32, on `device`."""
    from genloop.models.clip.load import load_clip
    from genloop.models.clip.towers import load_clip_transformers

    read = load_clip_transformers if options.backend == "transformers" else load_clip
    return read(
        resolve(options.checkpoint),
        architecture=options.architecture,
        published_as=options.pretrained,
        device=device,
        rows_per_forward=rows_per_forward,
        precision=precision,
    )
