"""GenEval's detector, Mask2Former with a Swin backbone, on stock transformers. No torch until it is loaded.

    detector=hf_mask2former detector.options.checkpoint=FOLDER

FOLDER is made from the official file by `genloop ckpts convert mask2former`. No compiled operators are needed.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from geneval.names import OBJECT_NAMES
from geneval.settings import PartMaker
from genloop.bounds import Total
from genloop.config import LAUNCH, Settings
from genloop.factories import Resolve
from genloop.models.mask2former.config import (
    Mask2FormerConfig,
    Preparation,
    Preprocess,
    check_mask2former_folder,
    read_preparation,
    read_source,
)

if TYPE_CHECKING:
    from geneval.detectors.mask2former_detector import Mask2FormerDetector


class Mask2FormerOptions(Settings):
    """Keys of `detector.kind=hf_mask2former`."""

    checkpoint: Annotated[str, LAUNCH] = Field(description="name or folder, fingerprinted by content")
    preprocess: Preprocess | None = Field(
        None, description="pixels as mmdet 3.x or 2.x prepares them; null: as the checkpoint says, else mmdet3"
    )
    pixels_per_forward: Annotated[Total | None, LAUNCH] = Field(
        None, description="padded pixels in one forward pass; null: one image on the CPU, 8 of 800 x 800 on a GPU"
    )


class Mask2FormerMaker(PartMaker):
    """The maker behind `hf_mask2former`."""

    Options = Mask2FormerOptions

    @classmethod
    def check(cls, options: Mask2FormerOptions, resolve: Resolve) -> None:
        """Another family, tensors that do not fit, other classes than COCO's 80; reads headers only."""
        folder = resolve(options.checkpoint)
        _check_classes(check_mask2former_folder(folder), folder)

    @classmethod
    def inputs(cls, options: Mask2FormerOptions, resolve: Resolve) -> dict[str, Path]:
        """The weights, and what the folder says about pixels."""
        return {"checkpoint": resolve(options.checkpoint)}

    @classmethod
    def facts(cls, options: Mask2FormerOptions, resolve: Resolve) -> dict[str, Any]:
        """How images are prepared in the end, and which file the folder was made of, where it says so."""
        folder = resolve(options.checkpoint)
        said, source = read_preparation(folder), read_source(folder)
        found = {"preprocess": options.preprocess or said.preprocess, "scale": list(said.scale)}
        return found | ({"source": source} if source else {})

    @classmethod
    def classes(cls, options: Mask2FormerOptions) -> Sequence[str]:
        """COCO's 80, in GenEval's words."""
        return OBJECT_NAMES

    @classmethod
    def load(cls, options: Mask2FormerOptions, resolve: Resolve, device: str) -> "Mask2FormerDetector":
        """In float32 and eval mode."""
        from geneval.detectors.mask2former_detector import Mask2FormerDetector
        from genloop.models.mask2former.load import load_mask2former

        folder = resolve(options.checkpoint)
        said = read_preparation(folder)
        return Mask2FormerDetector(
            load_mask2former(folder, device=device),
            Preparation(options.preprocess or said.preprocess, said.scale),
            pixels_per_forward=options.pixels_per_forward,
        )


def _check_classes(config: Mask2FormerConfig, folder: Path) -> None:
    """GenEval counts classes by their number: there have to be 80, and none that it knows at another place."""
    names = config.class_names
    if len(names) != len(OBJECT_NAMES):
        raise ValueError(
            f"{folder} knows {len(names)} classes, GenEval needs the {len(OBJECT_NAMES)} of COCO; use a checkpoint of "
            "instance segmentation on COCO"
        )
    places = {name: place for place, name in enumerate(OBJECT_NAMES)}
    for place, name in enumerate(names):
        known = places.get(name.replace("_", " "), place)
        if known != place:
            raise ValueError(
                f"{folder}: class {place} is {name!r}, which is number {known} in COCO's order; use a checkpoint with "
                "COCO's order"
            )
