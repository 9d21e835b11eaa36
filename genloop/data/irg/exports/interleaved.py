"""Conversations as Interleaving-Reasoning-Generation (Huang et al. 2025) trains on them: parquet with one JSON column.

`conversation` is a list of parts {"type": text | image, "content", "need_loss", "need_vae", "need_vit"}; an image's
content is base64. The prompt has no loss; the thought before the first image, each text about an image and the last
image have; images before it are conditions. `id`, `split` and `license` are columns of ours.
"""

import base64
import binascii
import io
import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from genloop.data.irg.exports import UnitFiles
from genloop.data.irg.exports.lazy import Read, files_of
from genloop.data.irg.exports.looks import Seen, looks_of, read_looks, record_of
from genloop.data.shards import Sample
from genloop.reading import parse_json
from genloop.registry import require

_ROWS = 32  # of a row group, which is read at once


class Interleaved:
    """One row a trace."""

    def write(self, unit: str, samples: Sequence[Sample], sink: UnitFiles) -> list[str]:
        """exported/UNIT.parquet"""
        arrow, parquet = require("pyarrow", "corpus"), require("pyarrow.parquet", "corpus")
        rows = []
        for sample in samples:
            record = record_of(sample)
            row = {"id": record.id, "split": record.split, "license": record.license}
            rows.append(row | {"conversation": json.dumps(_parts(sample), ensure_ascii=False)})
        names = ("id", "split", "license", "conversation")
        schema = arrow.schema([(name, arrow.string()) for name in names])
        stream = io.BytesIO()
        parquet.write_table(arrow.Table.from_pylist(rows, schema), stream, row_group_size=_ROWS, compression="snappy")
        sink.file(f"exported/{unit}.parquet", stream.getvalue())
        return []

    def read(self, source: Path) -> Sequence[Sample]:
        """All rows of the parquet files at or below a folder."""
        places = [place for path in files_of(source, ".parquet") for place in _places(path)]
        return Read(len(places), lambda number: _trace(*places[number]))


def _parts(sample: Sample) -> list[dict[str, Any]]:
    record = record_of(sample)
    looks = looks_of(record)
    parts = [_part("text", record.instruction, False)]
    if record.reasoning_text:
        parts.append(_part("text", record.reasoning_text, True))
    for place, look in enumerate(looks):
        is_last = place == len(looks) - 1
        parts.append(_part("image", base64.b64encode(sample.fields[look.image]).decode(), is_last))
        text = " => ".join(filter(None, [look.text, look.edit]))
        if text:
            parts.append(_part("text", text, True))
    return parts


def _part(kind: str, content: str, loss: bool) -> dict[str, Any]:
    is_image = kind == "image"
    return {"type": kind, "content": content, "need_loss": loss, "need_vae": is_image, "need_vit": is_image}


def _places(path: Path) -> list[tuple[Path, int, int]]:
    """(file, row group, row in it) of every row."""
    names, groups = _read(path, lambda file: (file.schema_arrow.names, _group_sizes(file.metadata)))
    if "conversation" not in names:
        raise ValueError(f"{path}: has no column 'conversation' ({', '.join(names)})")
    return [(path, group, row) for group, rows in enumerate(groups) for row in range(rows)]


def _group_sizes(metadata: Any) -> list[int]:
    return [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]


@lru_cache(4)
def _group(path: Path, group: int) -> list[dict[str, Any]]:
    return _read(path, lambda file: file.read_row_group(group).to_pylist())


def _read(path: Path, read: Callable[[Any], Any]) -> Any:
    """What `read` finds in a parquet file; ValueError for another or a damaged one."""
    parquet, arrow = require("pyarrow.parquet", "corpus"), require("pyarrow", "corpus")
    try:
        with parquet.ParquetFile(path) as file:
            return read(file)
    except (OSError, arrow.ArrowException) as error:
        raise ValueError(f"{path}: no parquet file: {' '.join(str(error).split())}") from None


def _trace(path: Path, group: int, number: int) -> Sample:
    row, where = _group(path, group)[number], f"{path}: row group {group}, row {number}"
    parts = row["conversation"]
    parts = parse_json(parts, where) if isinstance(parts, str) else parts
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        raise ValueError(f"{where}: conversation must be a list of parts")
    before: list[str] = []
    seen: list[tuple[bytes, list[str]]] = []
    for place, part in enumerate(parts):
        kind, content = part.get("type"), part.get("content")
        if kind not in ("text", "image") or not isinstance(content, str):
            raise ValueError(f"{where}: part {place} must be a text or an image with its content")
        if kind == "image":
            seen.append((_decoded(content, f"{where}: part {place}"), []))
        else:
            (seen[-1][1] if seen else before).append(content)
    looks = []
    for data, texts in seen:
        text, _, edit = "\n".join(texts).partition(" => ")
        looks.append(Seen(data, text, edit or ("" if data is seen[-1][0] else text)))
    key = str(row.get("id") or f"{path.stem}-{group}-{number}")
    reasoning = "\n".join(before[1:])
    instruction = before[0] if before else ""
    return read_looks(key, instruction, looks, told=row, source="irg", reasoning=reasoning)


def _decoded(content: str, where: str) -> bytes:
    try:
        return base64.b64decode(content.rpartition("base64,")[2], validate=True)
    except binascii.Error as error:
        raise ValueError(f"{where}: no base64: {error}") from None
