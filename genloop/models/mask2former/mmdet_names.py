"""Names of tensors in mmdet's files of Mask2Former: 3.x renamed the layers of both transformers. No torch."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

BUFFER = ".relative_position_index"  # in mmdet's files; counted, not learned
_OLD_NAMES = tuple(
    (re.compile(old), new)
    for old, new in (
        (r"^(panoptic_head\.pixel_decoder\.encoder\.layers\.\d+)\.attentions\.0\.", r"\1.self_attn."),
        (r"^(panoptic_head\.transformer_decoder\.layers\.\d+)\.attentions\.0\.", r"\1.cross_attn."),
        (r"^(panoptic_head\.transformer_decoder\.layers\.\d+)\.attentions\.1\.", r"\1.self_attn."),
        (r"^(panoptic_head\.(?:pixel_decoder\.encoder|transformer_decoder)\.layers\.\d+)\.ffns\.0\.", r"\1.ffn."),
    )
)


def is_old(names: Iterable[str]) -> bool:
    """Whether these are the names of mmdet 2.x."""
    return any(".attentions.0." in name for name in names)


def new_name(name: str) -> str:
    """A name of mmdet 2.x -> that of 3.x; those of 3.x stay."""
    for old, new in _OLD_NAMES:
        name = old.sub(new, name)
    return name


def class_names(meta: Any) -> tuple[str, ...] | None:
    """What the `meta` of a file calls its classes: 3.x under dataset_meta, 2.x under CLASSES; None: it says nothing."""
    if not isinstance(meta, Mapping):
        return None
    dataset = meta.get("dataset_meta")
    names = (dataset.get("classes") if isinstance(dataset, Mapping) else None) or meta.get("CLASSES")
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        return None
    return tuple(names)
