"""A table as CSV, one row a round: numbers in columns of their own, diagnoses and actions as JSON, images beside.

Features have the columns NAME and result_NAME. Read back, the texts of the conversation are written anew.
"""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from genloop.data.irg.exports import UnitFiles
from genloop.data.irg.exports.lazy import Read, files_of
from genloop.data.irg.exports.looks import read_file, record_of, sample_of
from genloop.data.irg.phrases import SLOTS
from genloop.data.irg.record import DECIMALS, Record, Round, parse_record
from genloop.data.irg.text import conversation
from genloop.data.shards import Sample
from genloop.reading import parse_json, read_utf8

_TRACE = ("id", "schema_version", "split", "instruction", "intent", "license", "trace_reasoning_text", "final_prompt")
_ROUND = ("index", "image", "image_sha256", "result", "result_sha256", "accepted", "reasoning_text", "diagnosis_text")
_JSON = ("diagnosis", "actions")
COLUMNS = (*_TRACE, *_ROUND, *_JSON, *DECIMALS, *(f"result_{name}" for name in DECIMALS))


class Tables:
    """Rows of one trace stand together."""

    def write(self, unit: str, samples: Sequence[Sample], sink: UnitFiles) -> list[str]:
        """exported/UNIT.csv and images/KEY.0.png, ..."""
        stream = io.StringIO()
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for sample in samples:
            record = record_of(sample)
            for name in (field for field in sample.fields if field.endswith(".png")):
                sink.file(f"images/{record.id}.{name}", sample.fields[name])
            writer.writerows(_row(record, one) for one in record.rounds)
        sink.file(f"exported/{unit}.csv", stream.getvalue().encode())
        return []

    def read(self, source: Path) -> Sequence[Sample]:
        """All tables at or below a folder; ValueError names the column or the line that does not fit."""
        folder = source if source.is_dir() else source.parent
        traces = [group for path in files_of(source, ".csv") for group in _groups(path)]
        return Read(len(traces), lambda place: _trace(folder, *traces[place]))


def _row(record: Record, one: Round) -> dict[str, Any]:
    told = one.model_dump()
    row = {name: getattr(record, name) for name in _TRACE if name != "trace_reasoning_text"}
    row |= {"trace_reasoning_text": record.reasoning_text}
    row |= {name: told[name] for name in _ROUND} | {name: json.dumps(told[name]) for name in _JSON}
    row |= {name: told["features"][name] for name in DECIMALS}
    after = told["result_features"] or {}
    return row | {f"result_{name}": after.get(name) for name in DECIMALS}


def _groups(path: Path) -> list[tuple[list[dict[str, str]], str]]:
    """(rows of one trace, "FILE:LINE" of the first)"""
    reader = csv.DictReader(io.StringIO(read_utf8(path)), strict=True)
    missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
    if missing:
        raise ValueError(f"{path}: has no column {missing[0]!r}")
    rows = []
    try:
        for row in reader:
            where = f"{path}:{reader.line_num}"
            if None in row or None in row.values():
                raise ValueError(f"{where}: not as many columns as the header has")
            rows.append((row, where))
    except csv.Error as error:
        raise ValueError(f"{path}:{reader.line_num}: no CSV: {error}") from None
    parts = [list(part) for _, part in groupby(rows, key=lambda pair: pair[0]["id"])]
    return [([row for row, _ in part], part[0][1]) for part in parts]


def _trace(folder: Path, rows: Sequence[Mapping[str, str]], where: str) -> Sample:
    first = rows[0]
    plain: dict[str, Any] = {
        name: first[name] for name in _TRACE if name not in ("schema_version", "trace_reasoning_text")
    }
    plain |= {
        "schema_version": _number(first["schema_version"], where),
        "reasoning_text": first["trace_reasoning_text"],
    }
    plain["generator"] = {"name": "csv", "seed": 0, "params_sha": "0" * 64}
    plain["rounds"] = [_round(row, where) for row in rows]
    record = parse_record(plain, where)
    requests = [SLOTS["request"].templates(record.split)[0][1]] * len(record.rounds)
    record = record.model_copy(update={"messages": conversation(record, requests)})
    names = {one.image for one in record.rounds} | {one.result for one in record.rounds if one.result}
    images = {name: read_file(folder, f"images/{record.id}.{name}", where) for name in sorted(names)}
    return sample_of(record, images)


def _round(row: Mapping[str, str], where: str) -> dict[str, Any]:
    found: dict[str, Any] = {name: row[name] or None for name in _ROUND}
    found |= {"index": _number(row["index"], where), "accepted": row["accepted"] == "True"}
    found |= {name: row[name] for name in ("reasoning_text", "diagnosis_text")}
    found |= {name: parse_json(row[name], where) for name in _JSON}
    found["features"] = {name: _number(row[name], where) for name in DECIMALS}
    after = {name: _number(row[f"result_{name}"], where) for name in DECIMALS}
    return found | {"result_features": after if row["result"] else None}


def _number(text: str, where: str) -> float | int | None:
    if not text:
        return None
    try:
        return int(text) if text.lstrip("-").isdecimal() else float(text)
    except ValueError:
        raise ValueError(f"{where}: {text!r} is no number") from None
