"""Bad files of prompts, metadata, images and masks: refused in one line that names the file, the line and the key."""

import json
from typing import Any

import pytest

from genloop.data.masks import decode_mask
from genloop.data.pictures import find_images, find_pictures
from genloop.data.prompts import parse_metadata, read_prompts
from tests.worlds.image_folders import write_pictures
from tests.worlds.prompt_files import line, write_files

CLASSES = ("dog", "cat", "apple", "wine glass")


def clause(**changes: Any) -> dict[str, Any]:
    """A line whose only clause has some keys changed; None removes one."""
    row = {"class": "dog", "count": 1, **changes}
    return line(include=[{key: value for key, value in row.items() if value is not None}])


def position(value: object) -> dict[str, Any]:
    return line(include=[{"class": "cat", "count": 1}, {"class": "dog", "count": 1, "position": value}])


@pytest.mark.parametrize(
    ("texts", "metadata", "message"),
    [
        (b"", None, r"prompts\.txt: no prompts"),
        (b"\n \n", None, r"prompts\.txt: no prompts"),
        (b"one\n\ntwo\n", None, r"prompts\.txt:2: empty"),
        (b"one\ntw\xff\n", None, r"prompts\.txt:2: .*UTF-8.*0xff .*column 3;"),
        ("one\n".encode("utf-16"), None, r"prompts\.txt:1: .*UTF-8"),
        (b"a photo of a dog\na photo of a cat\n", b"GOOD\nGOOD\n", r"txt:2: .*of a cat' .*of a dog' .*line 2"),
        (b"a photo of a dog\n", b"GOOD\nGOOD\n", r"jsonl: has 2 lines, .*txt has 1 prompts"),
        (b"a photo of a dog\na photo of a dog\na\n", b"GOOD\nGOOD\n", r"jsonl: has 2 lines, .*txt has 3 prompts"),
        (None, b"", "jsonl: no prompts"),
        (None, b"[]", "jsonl: no prompts"),
        (None, b'{"tag": "colors",\n', r"jsonl:1: broken JSON: .* 18"),
        (None, b"GOOD\n\nGOOD\n", "jsonl:2: empty line"),
        (None, b'GOOD\nGOOD\n{"tag" "colors"}\n', r"jsonl:3: broken JSON: .* 8"),
        (None, b"GOOD\n\xc3\x28\n", r"jsonl:2: .*UTF-8.*0xc3 .*column 1;"),
        (None, b'[GOOD,\n{"tag": }]', r"jsonl: broken JSON .*line 2: .* 9"),
        (None, b"GOOD\n" + b"[" * 100_000, "jsonl:2: JSON nested more than"),
        (None, b"GOOD\n3\n", "jsonl:2: .*found 3"),
    ],
)
def test_bad_prompt_files_are_refused_with_their_line(tmp_path, texts, metadata, message):
    good = json.dumps(line()).encode()
    files = write_files(tmp_path, texts, metadata and metadata.replace(b"GOOD", good))
    with pytest.raises(ValueError, match=message) as caught:
        read_prompts(*files)
    assert "\n" not in str(caught.value)


def test_missing_files_and_folders_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.txt: no such file"):
        read_prompts(tmp_path / "none.txt")
    with pytest.raises(FileNotFoundError, match=r"none\.jsonl: no such file"):
        read_prompts(None, tmp_path / "none.jsonl")
    with pytest.raises(ValueError, match="is a folder"):
        read_prompts(tmp_path)
    with pytest.raises(ValueError, match="no prompts"):
        read_prompts(None)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a cat\ra dog\r", r"texts\.txt:1: carriage return"),
        (b"a cat\r\na red\rdog\n", r"texts\.txt:2: carriage return"),
        ("a cat\na dog\n".encode("utf-16-le"), r"texts\.txt:1: not UTF-8 text: .*NUL"),
        ("a cat\na dog\n".encode("utf-16"), r"texts\.txt:1: not UTF-8"),
        (b"a cat\na \0dog\n", r"texts\.txt:2: not UTF-8 text"),
    ],
)
def test_a_file_that_is_no_lines_of_utf8_is_refused(tmp_path, content, message):
    (tmp_path / "texts.txt").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_prompts(tmp_path / "texts.txt")


def test_the_byte_order_marks_of_joined_files_are_no_part_of_prompts(tmp_path):
    texts, metadata = tmp_path / "texts.txt", tmp_path / "metadata.jsonl"
    rows = [json.dumps(line(prompt=text)) for text in ("a cat", "a dog", "a cow")]
    texts.write_bytes("\ufeffa cat\n\ufeffa dog\r\n\ufeffa cow\n".encode())
    metadata.write_bytes("\n\ufeff".join(rows).encode())
    assert [prompt.text for prompt in read_prompts(texts, metadata)] == ["a cat", "a dog", "a cow"]


@pytest.mark.parametrize("text", ["two\nlines", "two\rlines", "a \0 byte"])
def test_a_prompt_of_several_lines_fits_an_image_but_no_prompt_file(tmp_path, text):
    assert parse_metadata(line(prompt=f"{text}\n"), 0, where="here").text == text
    (tmp_path / "metadata.jsonl").write_text(json.dumps(line(prompt=text)))
    with pytest.raises(ValueError, match=r"metadata\.jsonl:1: prompt must be one line"):
        read_prompts(None, tmp_path / "metadata.jsonl")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (line(tag=None), "tag is missing"),
        (line(tag="color"), r"task 'color'; .*'colors'"),
        (line(tag=7), "tag .*found 7"),
        (line(prompt=None), "prompt is missing"),
        (line(prompt=""), "prompt must"),
        (line(prompt=" "), "prompt must .*blanks"),
        (line(prompt="a \ud83d dog"), r"prompt .*\"a \\ud83d dog\""),
        (line(include=None), "include is missing"),
        (line(include=[]), r"include must .*found \[\]"),
        (line(include={}), "include must"),
        (line(include=["dog"]), r"include\[0\]: .*object"),
        (line(exlude=[{"class": "dog", "count": 2}]), "'exlude'; .*'exclude'"),
        (line(exclude={"class": "dog"}), "exclude must"),
        (line(exclude=[{"class": "dog", "count": 2, "color": "red"}]), r"exclude\[0\]: .*'color'"),
        (clause(count=None), r"include\[0\]: count is missing"),
        (clause(count=0), r"include\[0\]\.count: .*found 0"),
        (clause(count=True), "count: .*found (true|True)"),
        (clause(count=2.0), r"count: .*found 2\.0"),
        (clause(count="2"), "count: .*found ['\"]2['\"]"),
        (clause(**{"class": "dgo"}), r"include\[0\]\.class: .*'dgo'; .*'dog'"),
        (clause(**{"class": None}), r"include\[0\]: class is missing"),
        (clause(**{"class": 5}), "class .*found 5"),
        (clause(color="gray"), r"color: .*'gray' \(red, orange, "),
        (clause(color=["red"]), "color must"),
        (clause(colour="red"), "'colour'; .*'color'"),
        (clause(position=["above", 0]), "position: .*first clause"),
        (position(["over", 0]), "position: .*'over'"),
        (position(["above", 1]), r"include\[1\]\.position: target 1 .*\(0\)"),
        (position(["above", -1]), "position: target -1"),
        (position(["above", True]), "position: must"),
        (position(["above"]), "position: must"),
        (position("above"), "position: must"),
    ],
)
def test_bad_metadata_is_refused_with_what_and_where(row, message):
    with pytest.raises(ValueError, match=message) as caught:
        parse_metadata(row, 0, where="metadata.jsonl:7", classes=CLASSES)
    assert str(caught.value).startswith("metadata.jsonl:7: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("names", "rows", "line"),
    [
        ([], None, r"no images; .*\.png"),
        (["dog.png"], "a dog\n", r"dog\.png: .*number of its prompt"),
        (["1.png"], "a dog\n", r"1\.png: .*line 1 .*prompts\.txt"),
        (["a.png"], '{"image": "b.png", "prompt": "b"}', "a.png: .* has no row about it"),
        (
            ["a.png"],
            '{"image": "a.png", "prompt": "b"}\n{"image": "a.png", "prompt": "c"}',
            "2: a second row about 'a.png'",
        ),
        (["a.png"], '{"image": "a.png", "prompt": "b"}\n{"prompt": "c"}', "some rows name their image"),
        (["a.png"], '{"image": "a.png", "caption": "b"}', "1: .*prompt or text"),
        (["a.png"], "[1]", "1: expected a JSON object"),
        (["a.png"], "{", "1: broken JSON"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(tmp_path, names, rows, line):
    (tmp_path / "images").mkdir()
    write_pictures(tmp_path / "images", *names)
    prompts = None
    if rows is not None:
        prompts = tmp_path / ("prompts.txt" if rows.startswith("a ") else "prompts.jsonl")
        prompts.write_text(rows)
    with pytest.raises(ValueError, match=line) as caught:
        find_pictures(tmp_path / "images", prompts)
    assert "\n" not in str(caught.value)
    for find in (find_pictures, find_images):
        with pytest.raises(FileNotFoundError, match="none: no such folder"):
            find(tmp_path / "none")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("d0", "mask of 7 x 3 pixels"),
        ("", "not the runs of a mask"),
        ("0NE", "not the runs of a mask"),
        ("d", "breaks off"),
        ("d0 ", "' ' does not belong"),
        ("dé", "'é' does not belong"),
    ],
)
def test_text_of_no_such_mask_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode_mask(text, 3, 7)
