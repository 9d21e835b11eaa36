"""LPIPS and DISTS from the published files: torchvision's state dicts and the heads of the packages lpips and DISTS."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from genloop.checkpoint import Shape, load_file, read_file_shapes
from genloop.models.perceptual.config import (
    DISTS_SHAPES,
    NETWORKS,
    VGG16,
    check_shapes,
    lpips_shapes,
    network_of,
)

if TYPE_CHECKING:
    from torch import Tensor

    from genloop.models.perceptual.model import Dists, Lpips

HEADS = ("lpips", "dists")


def needed(name: str, files: Mapping[str, Path], *, key: str = "weights") -> dict[str, Path]:
    """The files of one distance, out of {alexnet, vgg16, lpips, dists: file}; ValueError or FileNotFoundError.

    Shapes are compared, values are not read. `key`: of the config, under which they are named.
    """
    heads = _given(name, name, files, key)
    backbone = network_of(read_file_shapes(heads), heads) if name == "lpips" else "vgg16"
    found = {name: heads, backbone: _given(name, backbone, files, key)}
    if name == "dists":
        check_shapes(read_file_shapes(heads), DISTS_SHAPES, heads)
    check_shapes(read_file_shapes(found[backbone]), NETWORKS[backbone].shapes(), found[backbone])
    return found


def load_lpips(files: Mapping[str, Path], device: str) -> "Lpips":
    """`files` are those that are needed."""
    from genloop.models.perceptual.model import Lpips

    backbone = next(name for name in files if name != "lpips")
    network = NETWORKS[backbone]
    heads = _read(files["lpips"], lpips_shapes(network), device)
    return Lpips(network, _read(files[backbone], network.shapes(), device), heads)


def load_dists(files: Mapping[str, Path], device: str) -> "Dists":
    """`files` are those that are needed."""
    from genloop.models.perceptual.model import Dists

    return Dists(_read(files["vgg16"], VGG16.shapes(), device), _read(files["dists"], DISTS_SHAPES, device))


def _given(name: str, part: str, files: Mapping[str, Path], key: str) -> Path:
    if part not in files:
        raise ValueError(f"{key}.{part}: {name} needs this file, which genloop does not ship (docs/metrics.md)")
    if not files[part].is_file():
        raise FileNotFoundError(f"{key}.{part}: no file {files[part]}")
    return files[part]


def _read(path: Path, shapes: Mapping[str, Shape], device: str) -> "dict[str, Tensor]":
    """The tensors that are needed, in float32."""
    tensors = load_file(path, device=device)
    check_shapes({key: tuple(value.shape) for key, value in tensors.items()}, shapes, path)
    return {key: tensors[key].float() for key in shapes}
