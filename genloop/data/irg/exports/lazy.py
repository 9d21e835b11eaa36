"""A sequence whose items are made when they are asked for, and the rows of JSON-lines files with their places."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from genloop.data.shards import Sample
from genloop.reading import parse_json, read_utf8


class Read(Sequence[Sample]):
    """`number` samples, each by `read(place)`."""

    def __init__(self, number: int, read: Callable[[int], Sample]) -> None:
        self._number, self._read = number, read

    def __len__(self) -> int:
        return self._number

    def __getitem__(self, place: Any) -> Any:
        return self._read(range(self._number)[place])  # IndexError when there is no such sample


def files_of(source: Path, suffix: str) -> list[Path]:
    """The files of one kind at or below a folder (of a run, of its exported ones); FileNotFoundError without any."""
    if (source / "exported").is_dir():
        source = source / "exported"
    found = [source] if source.is_file() else sorted(source.rglob(f"*{suffix}")) if source.is_dir() else []
    found = [path for path in found if path.suffix == suffix and not path.name.startswith(".")]
    if not found:
        raise FileNotFoundError(f"no *{suffix} in {source}; name a folder that holds some")
    return found


def read_lines(files: Sequence[Path], needed: Sequence[str]) -> list[tuple[dict[str, Any], str]]:
    """(row, "FILE:LINE") of JSON-lines files; ValueError names the line that lacks a key."""
    rows = []
    for path in files:
        for number, line in enumerate(read_utf8(path).split("\n"), 1):
            if not line.strip():
                continue
            where = f"{path}:{number}"
            row = parse_json(line, where)
            if not isinstance(row, dict):
                raise ValueError(f"{where}: expected a JSON object, found {type(row).__name__}")
            if missing := [key for key in needed if key not in row]:
                raise ValueError(f"{where}: lacks {missing[0]!r}; needs {', '.join(needed)}")
            rows.append((row, where))
    if not rows:
        raise ValueError(f"{files[0]}: holds no rows")
    return rows
