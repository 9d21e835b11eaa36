"""Which class reads an image tokenizer folder: the `_class_name` of its config.json decides. No torch until loading."""

from pathlib import Path
from typing import TYPE_CHECKING

from genloop.checkpoint import read_json, read_shapes
from genloop.registry import lookup

if TYPE_CHECKING:
    from genloop.protocols import ImageTokenizer

LOADERS = {
    "MAGVITv2": "genloop.models.magvit2.model:load_magvit2",
    "PatchCodebook": "genloop.shapes.codebook:load_codebook",
}
CHECKS = {
    "MAGVITv2": "genloop.models.magvit2.config:check_magvit2_folder",
    "PatchCodebook": "genloop.models.common.image_tokenizers:check_codebook_folder",
}


def load_image_tokenizer(folder: Path, *, device: str = "cpu") -> "ImageTokenizer":
    """The tokenizer in a checkpoint folder, in float32."""
    return lookup(LOADERS, _class_name(folder), "image tokenizer")(folder, device=device)


def check_image_tokenizer(folder: Path) -> int:
    """Refuse a folder whose files are torn or do not fit its config.json -> its number of codes; reads headers only."""
    return lookup(CHECKS, _class_name(folder), "image tokenizer")(folder)


def check_codebook_folder(folder: Path) -> int:
    """The header of a patch codebook -> its number of codes."""
    shape = read_shapes(folder).get("patches", ())
    if len(shape) != 4:
        raise ValueError(f"{folder}: a patch codebook holds `patches` (K, 3, p, p), found {list(shape)}")
    return shape[0]


def _class_name(folder: Path) -> str:
    return str(read_json(folder / "config.json").get("_class_name"))
