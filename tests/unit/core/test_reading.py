"""The one reader of small files: what is too large, too deep or no file is refused in one line, at once."""

import json
import os
import re
from pathlib import Path

import pytest

from genloop.reading import (
    MAX_DEPTH,
    MAX_DIGITS,
    MAX_YAML_BYTES,
    TooLarge,
    has_long_number,
    object_or_empty,
    parse_json,
    parse_yaml,
    read_bytes,
    read_json,
    read_json_object,
    read_object_or_empty,
    read_utf8,
)

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)
MERGES = "a0: &a0 {x: 1}\n" + "".join(
    f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}], k{n}: 1}}\n" for n in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "p:1: nested more than"),
        ("{a: " * 100_000, "p:1: nested more than"),
        ("[" * 3000 + "]" * 3000, "p:1: nested more than"),
        ("- " * 50_000 + "x", "p:1: nested more than"),
        ("".join(" " * n + "a:\n" for n in range(500)), f"p:{MAX_DEPTH}: nested more than"),
        (BOMB, "p:5: more than"),
        (MERGES, "p:5: more than"),
        ("a: &a [*a]", "p: not plain values"),
        ("a: " + "9" * 401, "a number of 401 digits"),
        ("a: " + "9" * 5000, "p: not plain values"),
        ("a" * (MAX_YAML_BYTES + 1), "characters of YAML"),
    ],
)
def test_yaml_that_is_deep_large_or_multiplies_itself_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        parse_yaml(text, "p")
    assert "\n" not in str(caught.value)


def test_an_anchor_gives_each_place_its_own_copy() -> None:
    found = parse_yaml("{a: &x {n: [1]}, b: *x, c: {<<: *x, m: 2}}", "p")
    assert found == {"a": {"n": [1]}, "b": {"n": [1]}, "c": {"n": [1], "m": 2}}
    assert found["a"]["n"] is not found["b"]["n"]


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        nested(100_000),
        '{"a":' * 100_000,
        nested(MAX_DEPTH + 1),
        f'{{"a": {nested(MAX_DEPTH)}}}',
        "9" * (MAX_DIGITS + 1),
        "-" + "9" * 5000,
        "1" + "0" * 400 + ".5",
        '{"a": "' + "1" * 200 + '", "b": ' + "1" * 200 + "}",
    ],
)
def test_json_that_is_too_deep_or_has_a_long_number_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(TooLarge, match=r"^p: .*(nested|digits)") as caught:
        parse_json(text, "p")
    assert "\n" not in str(caught.value)
    (tmp_path / "p.json").write_text(text)
    with pytest.raises(ValueError, match=r"p\.json: "):
        read_json(tmp_path / "p.json")
    assert object_or_empty(text) == {} == read_object_or_empty(tmp_path / "p.json")


@pytest.mark.parametrize(
    "value", [json.loads(nested(MAX_DEPTH)), [[]] * 1000, {"digits": "1" * 200}, 10**30, [{"a": [1.5e300, None]}] * 200]
)
def test_json_within_the_limits_is_read_as_it_is(value: object) -> None:
    assert parse_json(json.dumps(value)) == value == parse_json(json.dumps(value).encode())


def test_a_key_that_is_there_twice_is_refused_where_it_counts() -> None:
    assert parse_json('{"a": 1, "a": 2}') == {"a": 2}
    with pytest.raises(ValueError, match="key 'a' is there twice"):
        parse_json('{"a": 1, "a": 2}', once=True)


@pytest.mark.parametrize("read", [read_bytes, read_utf8, read_json, read_json_object])
def test_what_is_no_regular_file_is_refused(read: object, tmp_path: Path) -> None:
    assert callable(read)
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("/dev/zero")
    for path in (tmp_path / "fifo", tmp_path / "link", Path("/dev/zero")):
        with pytest.raises(ValueError, match="is no regular file"):
            read(path)
    with pytest.raises(ValueError, match="is a folder"):
        read(tmp_path)
    for path in (tmp_path / "none", tmp_path / "fifo" / "x"):
        with pytest.raises(FileNotFoundError, match="no such file"):
            read(path)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(TooLarge, match="sparse: 1099511627776 bytes"):
        read_utf8(tmp_path / "sparse")


@pytest.mark.parametrize("length", [1, 100, 101, 102, 350])
@pytest.mark.parametrize("before", [0, 1, 57, 100, 101, 202, 999])
def test_a_long_number_is_found_wherever_it_stands(length, before):
    text = "1." * (before // 2) + "x" * (before % 2) + "7" * length + "." + "12 " * 60
    longest = max(map(len, re.findall("[0-9]+", text)))
    assert has_long_number(text) == (longest > MAX_DIGITS)
