"""Which class reads an image tokenizer folder: the `_class_name` of its config.json decides. No torch until loading.

A class of your own is named by the caller as "module:class" and has `check(folder)` and `load(folder, device=...)`,
which do what CHECKS and LOADERS do. A checkpoint folder cannot name code outside these tables.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genloop.checkpoint import read_shapes
from genloop.reading import read_json_object
from genloop.registry import did_you_mean, lookup

if TYPE_CHECKING:
    from genloop.protocols import ImageTokenizer

LOADERS = {
    "MAGVITv2": "genloop.models.magvit2.load:load_magvit2",
    "PatchCodebook": "genloop.shapes.codebook:load_codebook",
}
CHECKS = {
    "MAGVITv2": "genloop.models.magvit2.config:check_magvit2_folder",
    "PatchCodebook": "genloop.models.common.image_tokenizers:check_codebook_folder",
}
HALVED = ("MAGVITv2",)  # take other dtypes than float32


def load_image_tokenizer(
    folder: Path, own: str | None = None, *, device: str = "cpu", dtype: str = "float32"
) -> "ImageTokenizer":
    """The tokenizer in a checkpoint folder; `own` is a "module:class" that reads it. See `takes_dtype`."""
    load = _own(own).load if own else _listed(LOADERS, folder)
    if dtype == "float32":
        return load(folder, device=device)

    import torch

    return load(folder, device=device, dtype=getattr(torch, dtype))


def check_image_tokenizer(folder: Path, own: str | None = None) -> int:
    """Refuse a folder whose files are torn or do not fit its config.json -> its number of codes; reads headers only."""
    check = _own(own).check if own else _listed(CHECKS, folder)
    return check(folder)


def takes_dtype(folder: Path, own: str | None, dtype: str) -> bool:
    """Whether a tokenizer can be held in a dtype: all can in float32."""
    return dtype == "float32" or (own is None and _class_name(folder) in HALVED)


def check_codebook_folder(folder: Path) -> int:
    """The header of a patch codebook -> its number of codes."""
    shape = read_shapes(folder).get("patches", ())
    if len(shape) != 4:
        raise ValueError(f"{folder}: a patch codebook holds `patches` (K, 3, p, p), found {list(shape)}")
    return shape[0]


def _own(name: str) -> Any:
    found = lookup({}, name, "image tokenizer")
    if missing := [method for method in ("check", "load") if not hasattr(found, method)]:
        raise ValueError(f"image tokenizer {name!r} has no method {' and no '.join(missing)}")
    return found


def _class_name(folder: Path) -> str:
    return str(read_json_object(folder / "config.json").get("_class_name"))


def _listed(table: Mapping[str, str], folder: Path) -> Any:
    name = _class_name(folder)
    if name not in table:
        raise ValueError(f"{folder}: unknown image tokenizer {name!r}{did_you_mean(name, table)} ({', '.join(table)})")
    return lookup(table, name, "image tokenizer")
