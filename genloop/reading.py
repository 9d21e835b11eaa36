"""The one reader of small files: regular files only, UTF-8, JSON and YAML 1.2, each within limits.

What is too large, nested too deeply or multiplied by aliases is refused in one line before it costs time or memory.
No other module calls a parser of JSON or YAML.
"""

import json
import re
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML, YAMLError
from ruamel.yaml.composer import Composer, ComposerError
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.events import AliasEvent
from ruamel.yaml.scanner import Scanner

MAX_BYTES = 1 << 30  # of a file that is read whole
MAX_YAML_BYTES = 1 << 19
MAX_YAML_VALUES = 20_000  # each alias counts as often as what it stands for
MAX_DEPTH = 100  # of lists and objects inside of each other
MAX_DIGITS = 100  # of one number
_LONG_NUMBER = re.compile(f"[0-9]{{{MAX_DIGITS + 1}}}")


class TooLarge(ValueError):
    """Text that may be right but is larger, or nested more deeply, than anything that is read here."""


# --- files -----------------------------------------------------------------------------------------------------------


def regular_file(path: Path) -> Path:
    """`path` when it is a file that ends; FileNotFoundError or ValueError in one line for a folder, FIFO or device."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(f"{path}: no such file") from None
    if stat.S_ISDIR(mode):
        raise ValueError(f"{path}: is a folder, expected a file")
    if not stat.S_ISREG(mode):
        raise ValueError(f"{path}: is no regular file; copy its content to one")
    return path


def read_bytes(path: Path, *, limit: int = MAX_BYTES) -> bytes:
    """The content of a regular file of at most `limit` bytes; errors as of `regular_file`, TooLarge."""
    size = regular_file(path).stat().st_size
    if size > limit:
        raise TooLarge(f"{path}: {size} bytes, at most {limit} are read")
    return path.read_bytes()


def read_utf8(path: Path, *, limit: int = MAX_BYTES) -> str:
    """The text of a file, without byte-order marks at the beginning of lines (files joined by `cat` have several).

    ValueError names the line and byte that is not UTF-8, or no text; errors of `read_bytes`.
    """
    data = read_bytes(path, limit=limit)
    if b"\0" in data:
        line = data.count(b"\n", 0, data.index(b"\0")) + 1
        raise ValueError(f"{path}:{line}: not UTF-8 text: holds a NUL byte, as UTF-16 does; save the file as UTF-8")
    try:
        return data.decode("utf-8").removeprefix("\ufeff").replace("\n\ufeff", "\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - (data.rfind(b"\n", 0, error.start) + 1) + 1
        raise ValueError(
            f"{path}:{line}: not UTF-8: byte 0x{data[error.start]:02x} at column {column}; save the file as UTF-8"
        ) from None


# --- JSON ------------------------------------------------------------------------------------------------------------


def parse_json(text: str | bytes, where: str = "", *, once: bool = False) -> Any:
    """The JSON value of a text; ValueError in one line that `where` opens, TooLarge for depth or a long number.

    With `once` the keys of an object have to be all different.
    """
    opening = f"{where}: " if where else ""
    try:
        return _parse_json(text if isinstance(text, str) else text.decode("utf-8").removeprefix("\ufeff"), once=once)
    except json.JSONDecodeError as error:
        line = f" on line {error.lineno}" if error.lineno > 1 else ""
        raise ValueError(f"{opening}broken JSON{line}: {error.msg} at column {error.colno}") from None
    except RecursionError:
        raise TooLarge(f"{opening}JSON nested more than {MAX_DEPTH} deep") from None
    except TooLarge as error:
        raise TooLarge(f"{opening}{error}") from None
    except ValueError as error:  # no UTF-8, a key that is there twice
        raise ValueError(f"{opening}broken JSON: {error}") from None


def read_json(path: Path) -> Any:
    """The one JSON value of a file, without a key that is there twice; errors of `read_utf8` and `parse_json`."""
    return parse_json(read_utf8(path), f"{path}", once=True)


def read_json_object(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object; FileNotFoundError or ValueError in one line otherwise."""
    value = parse_json(read_utf8(path), f"{path}")
    if not isinstance(value, dict):
        raise ValueError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


def json_object(line: bytes) -> dict[str, Any]:
    """A row of any job as a dictionary; ValueError when it is no JSON object."""
    row = parse_json(line)
    if not isinstance(row, dict):
        raise ValueError("no JSON object")
    return row


def object_or_empty(text: str | bytes) -> dict[str, Any]:
    """The JSON object of a text; empty when it is anything else, as after a crash of the machine."""
    try:
        value = parse_json(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def read_object_or_empty(path: Path) -> dict[str, Any]:
    """The JSON object of a file that another process may be writing; empty when it is not there or not whole."""
    try:
        return object_or_empty(read_bytes(path))
    except (FileNotFoundError, ValueError):
        return {}


def read_objects(path: Path) -> Iterator[dict[str, Any]]:
    """The JSON objects of a file of lines, without one that a crash has torn; none where there is no such file."""
    lines = read_bytes(path).split(b"\n") if path.is_file() else []
    return filter(None, map(object_or_empty, lines))


def _parse_json(text: str, *, once: bool) -> Any:
    number: dict[str, Any] = {}
    if has_long_number(text):  # only then: a function for each number makes parsing slow
        number = {"parse_int": _short(int), "parse_float": _short(float)}
    value = json.loads(text, object_pairs_hook=_once if once else None, **number)
    if text.count("[") + text.count("{") > MAX_DEPTH:
        _check_depth(value)
    return value


def has_long_number(text: str) -> bool:
    """Whether more than MAX_DIGITS digits stand in a row: those cover one of every MAX_DIGITS + 1 places."""
    step = MAX_DIGITS + 1
    return any(
        char in "0123456789" and _LONG_NUMBER.search(text, max(0, place * step - MAX_DIGITS), (place + 1) * step)
        for place, char in enumerate(text[::step])
    )


def _short(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    def checked(digits: str) -> Any:
        if _LONG_NUMBER.search(digits):
            raise TooLarge(f"a number of {len(digits)} digits, at most {MAX_DIGITS} are read")
        return parse(digits)

    return checked


def _check_depth(value: Any) -> None:
    level = [value]  # of lists and objects; the value has brackets, so it is one
    for _ in range(MAX_DEPTH):
        parts = (part for group in level for part in (group.values() if type(group) is dict else group))
        level = [part for part in parts if type(part) in (dict, list)]
        if not level:
            return
    raise TooLarge(f"JSON nested more than {MAX_DEPTH} deep")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, whose keys are all different."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"key {next(key for key, count in Counter(keys).items() if count > 1)!r} is there twice")
    return found


# --- YAML ------------------------------------------------------------------------------------------------------------


def parse_yaml(text: str, where: str) -> Any:
    """The YAML 1.2 value of a text as JSON has it too; ValueError in one line that `where` and the line number open.

    An anchor gives each place its own copy.
    """
    if len(text) > MAX_YAML_BYTES:
        raise TooLarge(f"{where}: {len(text)} characters of YAML, at most {MAX_YAML_BYTES} are read")
    yaml = YAML(typ="safe", pure=True)
    yaml.Scanner, yaml.Composer, yaml.Constructor = _Scanner, _Composer, _Constructor
    try:
        return _parse_json(json.dumps(yaml.load(text)), once=True)  # the keys 1 and "1" are one
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise ValueError(f"{where}{line}: {getattr(error, 'problem', None) or 'not valid YAML'}") from None
    except (TypeError, ValueError, RecursionError) as error:  # bytes, a set, an anchor inside of itself
        raise ValueError(f"{where}: not plain values: {error}") from None


class _Constructor(SafeConstructor):
    """Plain values only: YAML 1.2 has no dates, so `2024-01-31` is text."""


_Constructor.add_constructor("tag:yaml.org,2002:timestamp", SafeConstructor.construct_yaml_str)


class _Scanner(Scanner):
    """Stops at deep brackets: it looks 1024 characters ahead, in a time that grows with the square of their depth."""

    def fetch_flow_collection_start(self, *args: Any, **keys: Any) -> None:
        """As of the library, within the limit."""
        super().fetch_flow_collection_start(*args, **keys)
        if len(self.flow_context) > MAX_DEPTH:
            raise _too_deep(self.reader.get_mark())


class _Composer(Composer):
    """Counts depth and values while the text is read, so that nothing large is ever built."""

    def __init__(self, *args: Any, **keys: Any) -> None:
        super().__init__(*args, **keys)
        self._depth = self._values = 0
        self._sizes: dict[str, int] = {}  # of what each anchor stands for

    def compose_node(self, parent: Any, index: Any) -> Any:
        """As of the library, within the limits."""
        event = self.parser.peek_event()
        before, self._depth = self._values, self._depth + 1
        self._values += self._sizes.get(event.anchor, 1) if isinstance(event, AliasEvent) else 1
        if self._depth > MAX_DEPTH:
            raise _too_deep(event.start_mark)
        if self._values > MAX_YAML_VALUES:
            what = f"more than {MAX_YAML_VALUES} values, aliases counted"
            raise ComposerError(problem=what, problem_mark=event.start_mark)
        node = super().compose_node(parent, index)
        if event.anchor is not None and not isinstance(event, AliasEvent):
            self._sizes[event.anchor] = self._values - before
        self._depth -= 1
        return node


def _too_deep(mark: Any) -> ComposerError:
    return ComposerError(problem=f"nested more than {MAX_DEPTH} deep", problem_mark=mark)
