"""Writing safetensors files: header and tensors as bytes, the same for the same tensors. No torch without tensors."""

import math
import struct
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genloop.registry import require
from genloop.rundir import json_line

if TYPE_CHECKING:
    from torch import Tensor

Shape = tuple[int, ...]

_BITS = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16, "F8_E4M3": 8, "F8_E5M2": 8, "BOOL": 8} | {
    f"{sign}{bits}": bits for sign in "IU" for bits in (8, 16, 32, 64)
}
_DTYPES = {  # torch's name: that of safetensors, which writes tensors in this order, those of one type by name
    "uint64": "U64",
    "int64": "I64",
    "float64": "F64",
    "float32": "F32",
    "uint32": "U32",
    "int32": "I32",
    "bfloat16": "BF16",
    "float16": "F16",
    "uint16": "U16",
    "int16": "I16",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
}


def safetensors_parts(
    tensors: "Mapping[str, Tensor]", metadata: Mapping[str, str] | None = None
) -> Iterator[memoryview]:
    """The bytes of a safetensors file: its header, then one tensor after the other, each brought to the CPU.

    They are those of the library, but for metadata, which it writes in an order that changes from run to run; None:
    that the tensors are PyTorch's.
    """
    kinds = {name: _DTYPES[str(tensor.dtype).removeprefix("torch.")] for name, tensor in tensors.items()}
    head, order, _ = _layout({name: (kinds[name], tuple(tensor.shape)) for name, tensor in tensors.items()}, metadata)
    return chain([memoryview(head)], map(_bytes_of, map(tensors.__getitem__, order)))


def write_shapes(path: Path, shapes: Mapping[str, Shape], dtype: str) -> None:
    """Write a safetensors file of these shapes, all of `dtype` (F32, BF16), that has no values and takes no room."""
    head, _, size = _layout({name: (dtype, shape) for name, shape in shapes.items()})
    with open(path, "wb") as file:
        file.write(head)
        file.truncate(len(head) + size)


def _layout(
    tensors: Mapping[str, tuple[str, Shape]], metadata: Mapping[str, str] | None = None
) -> tuple[bytes, list[str], int]:
    """{name: (type, shape)} -> what a safetensors file begins with, the order of its tensors, the bytes that follow."""
    order = sorted(tensors, key=lambda name: (list(_DTYPES.values()).index(tensors[name][0]), name.encode()))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"} if metadata is None else dict(sorted(metadata.items()))}
    end = 0
    for name in order:
        kind, shape = tensors[name]
        begin, end = end, end + math.prod(shape) * _BITS[kind] // 8
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [begin, end]}
    text = json_line(header)[:-1]
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text, order, end


def _bytes_of(tensor: "Tensor") -> memoryview:
    """A tensor's values, row by row."""
    flat = tensor.detach().cpu().contiguous().flatten()
    return flat.view(require("torch").uint8).numpy().data
