"""Rows and their images from what data sets are published as: a folder of `datasets`, parquet files, JSONL, JSON.

Images are values of the rows, or files that rows name, below a folder.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genloop.reading import parse_json, read_bytes, read_json, read_utf8
from genloop.registry import require
from genloop.rundir import check_inside

Row = Mapping[str, Any]
_SHARD = re.compile(r"(.+?)-\d{5}-of-\d{5}")  # as the hub names the files of a split


@dataclass(frozen=True, slots=True)
class Held:
    """Stands in a row for a value that is only read when somebody looks at it."""

    column: str


class Table:
    """Rows, in which images are `Held`, or named as files below `images`."""

    def __init__(self, where: Path, rows: Sequence[Row], images: Path, held: Mapping[str, Any] | None = None) -> None:
        self.where, self.rows, self._images, self._held = where, rows, images, held or {}

    def check_image(self, number: int, value: Any) -> None:
        """Refuse what a row says of its image when it is no value, and no file that is there; reads nothing."""
        if value is not None and not isinstance(value, Held):
            path = self._path(number, value)
            if not path.is_file():
                raise FileNotFoundError(f"{self.where}: row {number}: no such image: {path}")

    def image(self, number: int, value: Any) -> bytes | None:
        """What a row says of its image -> the bytes; None where it has none."""
        if isinstance(value, Held):
            value = self._held[value.column][number].as_py()
        if isinstance(value, Mapping):  # as `datasets` keeps images
            value = value.get("path") if value.get("bytes") is None else value["bytes"]
        if value is None or isinstance(value, bytes):
            return value
        return read_bytes(self._path(number, value))

    def _path(self, number: int, name: Any) -> Path:
        if not isinstance(name, str) or not name:
            raise ValueError(f"{self.where}: row {number}: an image is {name!r}; needs the name of a file")
        try:
            return self._images / check_inside(name)
        except ValueError as error:
            raise ValueError(f"{self.where}: row {number}: {error}") from None


def open_table(path: Path, split: str, images: Path | None = None) -> Table:
    """A file, or a folder as `datasets` saves it or as the hub has it; FileNotFoundError or ValueError in one line."""
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    if path.is_dir() and (found := _saved(path, split)) is not None:
        return _of_arrow(path, _read_saved(found), images or path)
    if path.is_dir():
        return _of_arrow(path, _read_parquet(_parquet_files(path, split)), images or path)
    if path.suffix == ".parquet":
        return _of_arrow(path, _read_parquet([path]), images or path.parent)
    if path.suffix == ".jsonl":
        lines = enumerate(read_utf8(path).split("\n"), 1)
        rows: Any = [parse_json(line, f"{path}:{number}") for number, line in lines if line.strip()]
    elif path.suffix == ".json":
        whole = read_json(path)
        rows = whole.get("pairs") if isinstance(whole, dict) else whole
    else:
        raise ValueError(f"{path}: needs a folder, or a file that ends in .parquet, .jsonl or .json")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{path}: needs objects, one a row")
    return Table(path, rows, images or path.parent)


def _saved(path: Path, split: str) -> Path | None:
    """The folder of one split as `Dataset.save_to_disk` writes it; None when `path` is another kind of folder."""
    if (path / "state.json").is_file():
        return path
    if not (path / "dataset_dict.json").is_file():
        return None
    if not (path / split / "state.json").is_file():
        known = sorted(folder.name for folder in path.iterdir() if (folder / "state.json").is_file())
        raise ValueError(f"{path}: has no split {split!r} ({', '.join(known)})")
    return path / split


def _parquet_files(path: Path, split: str) -> list[Path]:
    """Those of the split by their names or folder; where no name tells a split, all of them."""
    files = sorted(file for folder in (path, path / "data") for file in folder.glob("*.parquet"))
    named = sorted((path / split).glob("*.parquet")) or [file for file in files if file.name.startswith(f"{split}-")]
    if not named and (others := {found[1] for file in files if (found := _SHARD.match(file.name))}):
        raise ValueError(f"{path}: has no split {split!r} ({', '.join(sorted(others))})")
    if not (named or files):
        raise FileNotFoundError(f"{path}: neither a folder of `datasets` nor parquet files; name the file itself")
    return named or files


def _read_saved(folder: Path) -> Any:
    """-> pyarrow.Table, mapped"""
    datasets = require("datasets", "corpus")
    arrow = require("pyarrow", "corpus")
    try:
        return datasets.load_from_disk(str(folder)).with_format("arrow")[:]
    except (OSError, ValueError, KeyError, TypeError, arrow.ArrowException) as error:
        raise ValueError(f"{folder}: not a folder of `datasets` ({_said(error)}); save it again") from None


def _read_parquet(files: Sequence[Path]) -> Any:
    """-> pyarrow.Table"""
    parquet, arrow = require("pyarrow.parquet", "corpus"), require("pyarrow", "corpus")
    tables = []
    for file in files:
        try:
            tables.append(parquet.read_table(file, memory_map=True))
        except (OSError, arrow.ArrowException) as error:
            raise ValueError(f"{file}: not a parquet file ({_said(error)}); download it again") from None
    try:
        return arrow.concat_tables(tables)
    except arrow.ArrowException as error:
        raise ValueError(f"{files[0].parent}: parquet files of different columns ({_said(error)})") from None


def _of_arrow(where: Path, table: Any, images: Path) -> Table:
    types = require("pyarrow.types", "corpus")
    kinds = {name: table.schema.field(name).type for name in table.column_names}
    held = [name for name, kind in kinds.items() if types.is_struct(kind) and kind.get_field_index("bytes") >= 0]
    held += [name for name, kind in kinds.items() if types.is_binary(kind) or types.is_large_binary(kind)]
    columns = {name: table[name] for name in held}
    stand_ins = {name: Held(name) for name in held}
    return Table(where, [row | stand_ins for row in table.drop_columns(held).to_pylist()], images, columns)


def _said(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
