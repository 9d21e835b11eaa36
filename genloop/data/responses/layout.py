"""What the readers of rows share: keys that have to be texts, and two answers."""

from collections.abc import Mapping
from typing import Any

Row = Mapping[str, Any]


def text_of(row: Row, key: str, where: str) -> str:
    """The text behind a key; ValueError names both."""
    value = row.get(key)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{where}: {key}: needs a text, found {str(value)[:80]!r}")
    return value


def responses_of(value: Any, where: str) -> tuple[str, str]:
    """Two texts; ValueError that `where` opens."""
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise ValueError(f"{where}: needs two answers, found {str(value)[:80]!r}")
    first, second = (text_of({"answer": answer}, "answer", where) for answer in value)
    return first, second
