"""Official Mask2Former files of mmdet 2.x and 3.x -> a folder in the layout of transformers. No mmdet is needed.

    genloop ckpts convert mask2former mask2former_swin-s-p4-w7-224_lsj_8x2_50e_coco_20220504_001756-743b7d99.pth FOLDER

Tensors are read with `weights_only`: nothing in the file is run. Every tensor of the file has to find its place, and
every place its tensor. The folder says in conversion.json which file it was made of, and how mmdet prepared its images:
2.x resizes 8-bit pixels and pads with grey, 3.x resizes numbers and pads with zeros.
"""

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from ckpts.convert.mask2former_names import infer_config, source_of, source_shapes
from genloop.checkpoint import Shape, read_header, save_folder
from genloop.compat.pickled import load_pickled
from genloop.models.mask2former.config import (
    CONVERSION_FILE,
    Mask2FormerConfig,
    Preparation,
    Preprocess,
    mask2former_manifest,
)
from genloop.models.mask2former.mmdet_names import BUFFER, class_names, is_old, new_name
from genloop.registry import require
from genloop.rundir import sha256_file

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)
_LISTED = 5
_NAMED_DIGEST = re.compile(r"-([0-9a-f]{8})\.pth$")  # OpenMMLab names a file by the first digits of its sha256


@dataclass(frozen=True, slots=True)
class Conversion:
    """What came of a conversion."""

    folder: Path
    config: Mask2FormerConfig
    record: Mapping[str, Any]  # conversion.json
    num_tensors: int

    @property
    def lines(self) -> tuple[str, ...]:
        """What the command says of the file, and of what was made of it."""
        source, network = self.record["source"], self.config
        size = f"{network.swin.name}, {network.head.num_queries} queries, {len(network.class_names)} classes"
        return (
            f"mmdet {source['mmdet']}, sha256 {source['sha256']}",
            f"{size}; images as {self.record['preprocess']} has them",
            f"{self.folder}: {self.num_tensors} tensors, every tensor placed",
        )


def convert(
    file: Path,
    folder: Path,
    *,
    preprocess: Preprocess | None = None,
    scale: tuple[int, int] = Preparation().scale,
    backbone: str | None = None,
    trust_pickle: bool = False,
) -> Conversion:
    """Write `folder` anew, all or nothing. `preprocess` and `scale` (long and short side that images have to fit) are
    recorded for the detector; None: as the mmdet did whose names the file has.

    ValueError for files that hold anything but a Mask2Former of mmdet with a Swin backbone, the named one if any.
    """
    if not file.is_file():
        raise FileNotFoundError(f"no file {file}")
    if preprocess not in (None, *get_args(Preprocess)):
        raise ValueError(f"preprocess is {preprocess!r}, expected one of {', '.join(get_args(Preprocess))}")
    if folder.exists() and not (folder / CONVERSION_FILE).is_file() and (folder.is_file() or any(folder.iterdir())):
        raise ValueError(f"{folder} holds other things than an earlier conversion; name a new folder")
    digest = sha256_file(file)
    _compare_name(file, digest)
    state, class_names = _read(file, trust_pickle=trust_pickle)
    old = is_old(state)
    tensors, config = rename(state, class_names, file)
    if backbone not in (None, config.swin.name):
        raise ValueError(f"{file} holds a {config.swin.name}, {folder.name} is the name of a {backbone}; name another")
    record = {
        "source": {"file": file.name, "sha256": digest, "mmdet": "2.x" if old else "3.x"},
        "preprocess": preprocess or ("mmdet2" if old else "mmdet3"),
        "scale": [max(scale), min(scale)],
    }
    files = {"config.json": config.to_json(), CONVERSION_FILE: record}
    save_folder(folder, tensors, files, weights="model.safetensors")
    return Conversion(folder, config, record, len(tensors))


def rename(
    state: "Mapping[str, Tensor]", class_names: tuple[str, ...] | None, where: object
) -> "tuple[dict[str, Tensor], Mask2FormerConfig]":
    """mmdet's tensors -> those of transformers, in float32, and their sizes; ValueError lists what has no place."""
    kept = [name for name in state if not name.endswith(BUFFER)]
    named = {new_name(name): state[name] for name in kept}
    if len(named) < len(kept):
        raise ValueError(f"{where} mixes names of mmdet 2.x and 3.x for the same tensors; use the file as published")
    shapes = {name: tuple(tensor.shape) for name, tensor in named.items()}
    try:
        config = infer_config(shapes, class_names)
        manifest = mask2former_manifest(config)
        expected = source_shapes(manifest)
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
        what = f"no tensor {error}" if isinstance(error, KeyError) else f"shapes that do not go together ({error})"
        raise ValueError(f"{where} is not a Mask2Former of mmdet with a Swin backbone: {what}") from None
    _account(expected, shapes, where)
    _check_values(named, where)
    return {key: _part(named, key).float() for key in manifest}, config


def _account(expected: Mapping[str, Shape], found: Mapping[str, Shape], where: object) -> None:
    parts = []
    for what, names in (
        ("missing", sorted(expected.keys() - found.keys())),
        ("unknown", sorted(found.keys() - expected.keys())),
        ("misshapen", sorted(name for name in expected.keys() & found.keys() if expected[name] != found[name])),
    ):
        if names:
            more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
            parts.append(f"{len(names)} {what} ({', '.join(names[:_LISTED])}{more})")
    if parts:
        raise ValueError(f"{where} is not a Mask2Former of mmdet with a Swin backbone: tensors {'; '.join(parts)}")


def _check_values(named: "Mapping[str, Tensor]", where: object) -> None:
    for name, tensor in named.items():
        if not tensor.is_floating_point():
            raise ValueError(f"{where}: tensor {name} is {tensor.dtype}, not floating point; use the file as published")
        if not tensor.float().isfinite().all():
            raise ValueError(f"{where}: tensor {name} holds values that are no numbers; download the file again")


def _part(named: "Mapping[str, Tensor]", key: str) -> "Tensor":
    """The tensor behind a name of transformers."""
    source = source_of(key)
    tensor = named[source.name]
    if source.part == "whole":
        return tensor
    if source.part == "patches":  # (..., 4 C): mmdet counts patches fastest, down first; transformers channels
        patches = tensor.unflatten(-1, (-1, 4))[..., [0, 2, 1, 3]]
        return patches.transpose(-1, -2).flatten(-2)
    return tensor.chunk(3)[("first", "second", "third").index(source.part)]


def _read(file: Path, *, trust_pickle: bool) -> "tuple[dict[str, Tensor], tuple[str, ...] | None]":
    """Named tensors, and the names of the classes when the file has them."""
    if file.suffix == ".safetensors":
        read_header(file)
        return require("safetensors.torch").load_file(file), None
    content = load_pickled(file, trust=trust_pickle, how="convert it with --trust-pickle")
    state = content.get("state_dict", content) if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping) or not all(_is_plain(name, value) for name, value in state.items()):
        raise ValueError(f"{file}: no state_dict of named, dense tensors; expected a checkpoint of mmdet")
    return dict(state), class_names(content.get("meta"))


def _is_plain(name: Any, value: Any) -> bool:
    """Whether it is a name, and a tensor that holds its numbers one by one."""
    torch = require("torch")
    is_dense = isinstance(value, torch.Tensor) and value.layout is torch.strided and not value.is_nested
    return isinstance(name, str) and is_dense and not value.is_quantized and not value.is_meta


def _compare_name(file: Path, digest: str) -> None:
    named = _NAMED_DIGEST.search(file.name)
    if named and not digest.startswith(named[1]):
        log.warning(
            "%s: its sha256 begins with %s, not with %s as its name says; damaged or changed",
            file,
            digest[:8],
            named[1],
        )
