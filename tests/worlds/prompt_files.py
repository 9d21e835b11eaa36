"""Prompt files on disk, and lines of metadata with one thing changed."""

from pathlib import Path
from typing import Any

from genloop.data.prompts import METADATA_FILE, PROMPTS_FILE


def write_files(
    folder: Path, prompts: bytes | None = None, metadata: bytes | None = None
) -> tuple[Path | None, Path | None]:
    """The two files, where given -> their paths."""
    paths: list[Path | None] = []
    for name, data in ((PROMPTS_FILE, prompts), (METADATA_FILE, metadata)):
        paths.append(folder / name if data is not None else None)
        if data is not None:
            (folder / name).write_bytes(data)
    return paths[0], paths[1]


def line(**changes: Any) -> dict[str, Any]:
    """A good line of metadata with some keys changed; None removes one."""
    row = {"tag": "single_object", "include": [{"class": "dog", "count": 1}], "prompt": "a photo of a dog", **changes}
    return {key: value for key, value in row.items() if value is not None}
