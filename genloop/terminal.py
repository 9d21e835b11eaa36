"""What people read on a terminal: the one place that prints, and what it takes out of every text.

Texts come from servers, files and images. Control characters (terminal escape codes among them) and characters that
turn the direction of writing are left out, secrets are redacted, lines that are too long for anyone are cut.
"""

import io
import json
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, TextIO

from genloop.redaction import redact_text

MAX_LINE = 10_000  # characters
COLUMNS = 100  # where there is no terminal to ask
_MIN_COLUMNS, _MIN_CELL = 40, 24  # characters
_MAX_CELL = 40  # of a column that others stand beside
_ESCAPES = re.compile(r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]")  # of colour, cursor and screen
_UNSHOWN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_HALVES = re.compile(r"[\ud800-\udfff]")  # of characters: no stream takes them


def clean(text: str) -> str:
    """The text as it may be shown: tabs and line breaks stay, lines have at most about MAX_LINE characters."""
    shown = _HALVES.sub("\ufffd", _UNSHOWN.sub("", _ESCAPES.sub("", text)))
    return redact_text("\n".join(map(_cut, shown.split("\n"))))


def out(text: str) -> bool:
    """Print to standard output, as whole lines and at once -> whether somebody still reads it."""
    return _write(sys.stdout, clean(text))


def err_at_once(text: str) -> None:
    """Write to standard error past its stream, as a signal handler may: the stream may be in the middle of a text."""
    with suppress(OSError):
        os.write(2, f"{clean(text)}\n".encode())


def columns() -> int:
    """How many characters a line may have: as COLUMNS says, else as the terminal has, else 100."""
    return max(_MIN_COLUMNS, shutil.get_terminal_size((COLUMNS, 24)).columns)


def out_lines(lines: Iterable[str]) -> bool:
    """Print lines, the long ones wrapped below themselves -> whether somebody still reads it."""
    return out("\n".join(part for line in lines for part in wrapped(line, columns())))


def wrapped(line: str, width: int) -> list[str]:
    """A line as several of at most so many characters, those after the first set in; words stay whole."""
    indent = " " * (len(line) - len(line.lstrip()))
    parts = textwrap.wrap(
        line, width, subsequent_indent=f"{indent}    ", break_long_words=False, break_on_hyphens=False
    )
    return parts or [""]


def aligned(rows: Iterable[Sequence[str]], indent: int = 0) -> list[str]:
    """Rows of cells as lines of at most `columns()` characters; the last cell of a row is wrapped below itself.

    A column is as wide as its longest cell, up to 40 characters.
    """
    found = [list(row) for row in rows]
    count = max(map(len, found), default=0)
    widths = [
        min(_MAX_CELL, max((len(row[i]) for row in found if len(row) > i + 1), default=0)) for i in range(count - 1)
    ]
    lines = []
    for row in found:
        head = " " * indent + "".join(f"{cell:<{width}}  " for cell, width in zip(row[:-1], widths))
        room = columns() - len(head)
        if room >= _MIN_CELL:
            text = textwrap.wrap(row[-1], room, break_long_words=False, break_on_hyphens=False) or [""]
            lines += [f"{head}{text[0]}".rstrip(), *(" " * len(head) + part for part in text[1:])]
        else:
            lines += [head.rstrip(), *wrapped(" " * (indent + 4) + row[-1], columns())]
    return lines


def out_markdown(text: str) -> None:
    """Print Markdown as a terminal shows it: tables laid out in at most `columns()` characters, without colours."""
    from rich.console import Console
    from rich.markdown import Markdown

    page = Console(file=io.StringIO(), width=columns(), color_system=None, legacy_windows=False)
    with page.capture() as shown:
        page.print(Markdown(clean(text), hyperlinks=False))
    out("\n".join(line.rstrip() for line in shown.get().strip("\n").split("\n")))


def out_json(value: Any) -> None:
    """Print plain values to standard output as JSON; all is escaped that is not ASCII, nothing is cut."""
    _write(sys.stdout, json.dumps(value, indent=1))


def err(text: str) -> None:
    """Print to standard error, as whole lines and at once."""
    _write(sys.stderr, clean(text))


def _write(stream: TextIO, text: str) -> bool:
    """Once the reader has gone (`genloop status RUN | head`) nothing is printed any more, and that is no failure."""
    try:
        stream.write(text if text.endswith("\n") else f"{text}\n")
        stream.flush()
        return True
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())  # for what is still in the stream's buffer, too
        os.close(nowhere)
        return False


def _cut(line: str) -> str:
    if len(line) <= MAX_LINE:
        return line
    left_out = len(line) - MAX_LINE
    return f"{line[: MAX_LINE // 2]} [... {left_out} characters left out ...] {line[-MAX_LINE // 2 :]}"
