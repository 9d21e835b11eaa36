"""The printed summary equals the reference's, byte for byte, on every recorded result file."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from geneval.summary import format_reference, reference_line
from genloop.runs.evaluations import read_result_file
from genloop.runs.rows import EvaluatedRow
from tests.goldens.roots import golden_name, golden_paths

CASES = [
    (file, name, expected)
    for file in golden_paths("geneval/**/*expected.json")
    for name, expected in json.loads(file.read_text(encoding="utf-8")).items()
]


def lines_of(file: Path, expected: dict[str, Any]) -> list[bytes]:
    data = gzip.decompress((file.parent / f"{expected['file']}.gz").read_bytes())
    return [line + b"\n" for line in data.split(b"\n") if line.strip()]


@pytest.mark.parametrize(
    ("file", "expected"),
    [(file, expected) for file, _, expected in CASES],
    ids=[f"{golden_name(file)}:{name}" for file, name, _ in CASES],
)
def test_the_printed_summary_is_the_references(file: Path, expected: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").write_bytes(b"".join(lines_of(file, expected)))
    rows = list(read_result_file(tmp_path / "results.jsonl"))
    if expected["error"]:
        with pytest.raises(ValueError, match="no rows"):
            format_reference(rows)
        return
    assert format_reference(rows) == expected["stdout"]


@pytest.mark.parametrize("file", sorted({file for file, _, _ in CASES}), ids=golden_name)
def test_our_rows_turn_into_the_references_lines(file: Path) -> None:
    expected = json.loads(file.read_text(encoding="utf-8")).values()
    lines = [line for case in expected for line in lines_of(file, case)]
    assert lines
    for line in lines:
        row = json.loads(line)
        ours = {key: row[key] for key in ("tag", "prompt", "correct", "reason")}
        ours["metadata"], ours["details"] = json.loads(row["metadata"]), json.loads(row["details"])
        ours["image"] = row["filename"].partition("/")[2]
        found = EvaluatedRow(prompt_index=0, sample=0, **ours)
        assert reference_line(found, row["filename"].partition("/")[0]) == line
