"""Checkpoint folders: find, check, read and write their weights. No torch until tensors or .bin files are read.

A folder holds one of `{model,pytorch_model}.safetensors` (open_clip puts its name in front), the same sharded with an
index, or the `.bin` forms, which are read with `weights_only=True`: nothing is unpickled. Folders are written whole:
temporary name, fsync, rename.
"""

import hashlib
import os
import shutil
import uuid
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from genloop.reading import read_json_object, regular_file
from genloop.registry import require
from genloop.rundir import json_bytes, sha256_file, sync_folder, write_json
from genloop.safetensors_file import Shape as Shape
from genloop.safetensors_file import safetensors_parts

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS_FILE = "pytorch_model.safetensors"
MANIFEST_FILE = "manifest.json"

_STEMS = ("model", "diffusion_pytorch_model", "pytorch_model", "open_clip_model", "open_clip_pytorch_model")
_CHUNK = 1 << 24  # bytes
_LISTED = 10
_WEIGHTS = ("weight", "bias")
_SCALES = ".absmax"  # behind the name of a weight that bitsandbytes has packed: its scales


@dataclass(frozen=True, slots=True)
class WeightFiles:
    """The files that hold a checkpoint's tensors; `owner` names each key's file when the checkpoint has an index."""

    files: tuple[Path, ...]
    owner: Mapping[str, str] | None = None

    @property
    def is_safetensors(self) -> bool:
        return self.files[0].suffix == ".safetensors"


def find_weights(folder: Path) -> WeightFiles:
    """The weight files of a folder: safetensors before .bin, whole before sharded."""
    if not folder.is_dir():
        raise FileNotFoundError(f"no checkpoint folder {folder}")
    for suffix in (".safetensors", ".bin"):
        for stem in _STEMS:
            if (folder / f"{stem}{suffix}").is_file():
                return WeightFiles((folder / f"{stem}{suffix}",))
            if (folder / f"{stem}{suffix}.index.json").is_file():
                return _read_index(folder / f"{stem}{suffix}.index.json")
    wanted = ", ".join(f"{stem}{suffix}" for suffix in (".safetensors", ".bin") for stem in _STEMS)
    raise FileNotFoundError(f"{folder} holds no weights; expected one of {wanted} or an index of shards")


def _read_index(path: Path) -> WeightFiles:
    owner = read_json_object(path).get("weight_map")
    if not isinstance(owner, dict) or not owner or not all(isinstance(name, str) for name in owner.values()):
        raise ValueError(f"{path}: no weight_map from tensor names to shard files")
    names = sorted(set(owner.values()))
    if strangers := [name for name in names if Path(name).name != name]:
        raise ValueError(f"{path}: shard {strangers[0]!r} is not a file name")
    if missing := [name for name in names if not (path.parent / name).is_file()]:
        raise FileNotFoundError(f"{path} names shards that are not there: {_abbreviate(missing)}")
    return WeightFiles(tuple(path.parent / name for name in names), owner)


def read_header(path: Path) -> dict[str, Shape]:
    """{key: shape} of a safetensors file from its header alone; ValueError when the file is torn or not one."""
    return {key: shape for key, (_, shape) in _entries(path).items()}


def _entries(path: Path) -> dict[str, tuple[str, Shape]]:
    """{key: (type, shape)} in the order of the file, all of which the library compares with the file's size."""
    library = require("safetensors")
    try:
        with library.safe_open(regular_file(path), framework="np") as file:
            slices = {key: file.get_slice(key) for key in file.offset_keys()}
            found = {key: (part.get_dtype(), tuple(part.get_shape())) for key, part in slices.items()}
    except library.SafetensorError as error:
        why = str(error).removeprefix("Error while deserializing header: ")
        raise ValueError(f"{path}: truncated, or no safetensors file ({why}); copy or download it again") from None
    for key, (dtype, shape) in found.items():
        _check_kind(path, key, shape, is_float="F" in dtype or f"{key}{_SCALES}" in found)
    return found


def _check_kind(path: Path, key: str, shape: Shape, *, is_float: bool) -> None:
    """ValueError for a tensor without values, and for weights that are whole numbers or truth values."""
    if 0 in shape:
        raise ValueError(f"{path}: tensor {key!r} of shape {list(shape)} holds no values; use the file as published")
    if not is_float and key.rpartition(".")[2] in _WEIGHTS:
        raise ValueError(f"{path}: tensor {key!r} holds no floating-point numbers; use the file as published")


def check_finite(tensors: "Mapping[str, Tensor]", where: Path) -> None:
    """ValueError that names `where` and the first tensor with NaN or infinity; masks may hold infinity."""
    torch = require("torch")
    for key, tensor in tensors.items():
        if not tensor.is_floating_point() or tensor.is_meta or key.endswith("mask"):
            continue
        values = tensor.float() if tensor.element_size() == 1 else tensor
        total = values.sum(dtype=torch.promote_types(values.dtype, torch.float32))  # no copy, and finite of most
        if not total.isfinite() and not values.isfinite().all():
            raise ValueError(
                f"{where}: tensor {key!r} holds NaN or infinity; use a checkpoint whose training went well"
            )


def read_shapes(folder: Path) -> dict[str, Shape]:
    """{key: shape} of a folder without its values: from the headers of safetensors files, the pickles of .bin files."""
    weights = find_weights(folder)
    shapes: dict[str, Shape] = {}
    for path in weights.files:
        shapes |= _owned(path, read_file_shapes(path), weights.owner)
    _check_index(folder, weights, shapes)
    return shapes


def load_tensors(folder: Path, *, device: str = "cpu") -> "dict[str, Tensor]":
    """All tensors of a folder by name, on `device`; on the meta device no values are read."""
    weights = find_weights(folder)
    tensors: dict[str, Tensor] = {}
    for path in weights.files:
        if weights.is_safetensors:
            entries = _entries(path)
            on_meta = device == "meta"
            part = _on_meta(entries) if on_meta else require("safetensors.torch").load_file(path, device=device)
        else:
            part = load_archive(path, device=device)
        tensors |= _owned(path, part, weights.owner)
    _check_index(folder, weights, tensors)
    check_finite(tensors, folder)
    return tensors


def read_file_shapes(path: Path) -> dict[str, Shape]:
    """{key: shape} of one file of tensors, safetensors or PyTorch's own, without its values."""
    if path.suffix == ".safetensors":
        return read_header(path)
    return {key: tuple(value.shape) for key, value in load_archive(path, device="meta").items()}


def load_file(path: Path, *, device: str = "cpu") -> "dict[str, Tensor]":
    """The tensors of one file by name, on `device`."""
    if path.suffix == ".safetensors":
        read_header(path)
        tensors = require("safetensors.torch").load_file(path, device=device)
    else:
        tensors = load_archive(path, device=device)
    check_finite(tensors, path)
    return tensors


def _on_meta(entries: Mapping[str, tuple[str, Shape]]) -> "dict[str, Tensor]":
    """Tensors with the types and shapes of a safetensors file, without values."""
    torch, types = require("torch"), require("safetensors.torch")._TYPES
    return {key: torch.empty(shape, dtype=types[dtype], device="meta") for key, (dtype, shape) in entries.items()}


def load_archive(path: Path, *, device: str = "cpu") -> "dict[str, Tensor]":
    """The tensors of a .bin or .pt file; whatever else it holds is refused with a ValueError, not run."""
    torch = require("torch")
    try:
        part = load_plain(path, device=device)
    except UnpicklingError as error:
        first = str(error).strip().partition("\n")[0]
        raise ValueError(f"{path}: not readable as plain tensors ({first}); use a safetensors file") from None
    if not isinstance(part, dict) or not all(isinstance(value, torch.Tensor) for value in part.values()):
        raise ValueError(f"{path}: holds other things than named tensors; use the file with the weights alone")
    for key, value in part.items():
        _check_kind(path, str(key), tuple(value.shape), is_float=value.is_floating_point())
    return part


def load_plain(path: Path, *, device: str = "cpu") -> Any:
    """What a file of PyTorch holds: tensors and plain values. UnpicklingError says what it names besides, which is not
    run; ValueError in one line for a torn file.
    """
    torch = require("torch")
    check_archive(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of protocols of pickles
            return torch.load(path, map_location=device, weights_only=True, mmap=zipfile.is_zipfile(path))
    except UnpicklingError:
        raise
    except Exception as error:  # torn bytes lead a pickle anywhere
        first = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ValueError(f"{path}: not readable as a checkpoint of PyTorch ({first}); download it again") from error


def _owned(path: Path, part: Mapping[str, Any], owner: Mapping[str, str] | None) -> dict[str, Any]:
    """The entries of one shard that the index gives to it."""
    return {key: value for key, value in part.items() if owner is None or owner.get(key) == path.name}


def _check_index(folder: Path, weights: WeightFiles, found: Iterable[str]) -> None:
    if weights.owner is not None and (absent := sorted(set(weights.owner) - set(found))):
        raise ValueError(f"{folder}: the shards lack tensors of their index: {_abbreviate(absent)}")


def check_archive(path: Path) -> None:
    """A .bin file is a zip archive with its directory at the end (or, written by torch before 1.6, a bare pickle)."""
    with open(regular_file(path), "rb") as file:
        start = file.read(4)
    if start == b"PK\x03\x04" and not zipfile.is_zipfile(path):
        raise ValueError(f"{path}: truncated (the archive has no directory); download it again")
    if not start.startswith((b"PK\x03\x04", b"\x80")):
        raise ValueError(f"{path}: not a PyTorch checkpoint; copy or download it again")


def check_gguf(path: Path) -> None:
    """ValueError when a file does not begin as one of GGUF."""
    with open(regular_file(path), "rb") as file:
        start = file.read(4)
    if start != b"GGUF":
        raise ValueError(f"{path}: not a GGUF file; download it again")


def compare_manifest(
    expected: Mapping[str, Shape], found: Mapping[str, Shape], where: object, config: object = "its config.json"
) -> None:
    """ValueError that lists every missing, unexpected and misshapen tensor (ten of each, and how many more)."""
    missing = [f"{key} {list(expected[key])}" for key in expected if key not in found]
    unexpected = [f"{key} {list(found[key])}" for key in found if key not in expected]
    misshapen = [
        f"{key} is {list(found[key])}, expected {list(shape)}"
        for key, shape in expected.items()
        if key in found and tuple(found[key]) != tuple(shape)
    ]
    groups = (("missing", missing), ("unexpected", unexpected), ("misshapen", misshapen))
    parts = [f"{len(names)} {what} ({_abbreviate(names)})" for what, names in groups if names]
    if parts:
        raise ValueError(f"{where} does not fit {config}: {'; '.join(parts)}; use the checkpoint that belongs to it")


def _abbreviate(names: list[str]) -> str:
    more = f", and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def save_folder(
    folder: Path,
    tensors: "Mapping[str, Tensor]",
    files: Mapping[str, Mapping[str, Any] | bytes] | None = None,
    *,
    weights: str = WEIGHTS_FILE,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write the safetensors file `weights`, JSON objects, raw files, then a manifest of their sha256; all or nothing.

    An existing folder of that name is replaced. `files` maps relative names to objects (written as JSON) or bytes.
    `metadata` stands in the header of the weights.
    """
    with whole_folder(folder) as temporary:
        digest = _write_tensors(temporary / weights, tensors, metadata)
        for name, content in (files or {}).items():
            target = temporary / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content if isinstance(content, bytes) else json_bytes(content))
        known, names = {temporary / weights: digest}, sorted(path for path in temporary.rglob("*") if path.is_file())
        manifest = {path.relative_to(temporary).as_posix(): known.get(path) or sha256_file(path) for path in names}
        write_json(temporary / MANIFEST_FILE, manifest)


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """An empty folder for the body to fill, which takes the place of `folder` behind it: whole, or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.tmp")
    temporary.mkdir()
    try:
        yield temporary
        for path in (temporary, *temporary.rglob("*")):
            (sync_folder if path.is_dir() else _sync_file)(path)
        _swap_folder(temporary, folder)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, OSError) and error.filename is None:  # a full disk does not say where
            error.filename = os.fspath(folder)
        raise


def _write_tensors(path: Path, tensors: "Mapping[str, Tensor]", metadata: Mapping[str, str] | None) -> str:
    """Write a safetensors file and hash its bytes on the way -> sha256."""
    digest = hashlib.sha256()
    with open(path, "wb") as file:
        for raw in safetensors_parts(tensors, metadata):
            for start in range(0, len(raw), _CHUNK):
                file.write(raw[start : start + _CHUNK])
                digest.update(raw[start : start + _CHUNK])
    return digest.hexdigest()


def verify_folder(folder: Path) -> None:
    """ValueError that names the files which are missing or differ from the folder's manifest."""
    bad = []
    manifest = read_json_object(folder / MANIFEST_FILE)
    if not manifest:
        raise ValueError(f"{folder / MANIFEST_FILE}: names no files; convert or copy the folder again")
    for name, digest in manifest.items():
        path = folder / name
        if not path.is_file() or sha256_file(path) != digest:
            bad.append(name)
    if bad:
        raise ValueError(f"{folder}: files missing or changed since they were written: {_abbreviate(bad)}")


def _swap_folder(temporary: Path, folder: Path) -> None:
    """Rename into place; an older folder of that name steps aside first and is deleted last."""
    old = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.old")
    if folder.exists():
        folder.replace(old)
    temporary.replace(folder)
    sync_folder(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def _sync_file(path: Path) -> None:
    path.chmod(0o644)
    with open(path, "rb+") as file:
        os.fsync(file.fileno())
