"""Prompt files: what is good comes back as it was, what is bad is refused with one line that says where."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genloop.data.prompts import (
    METADATA_FILE,
    PROMPTS_FILE,
    caption,
    encode_prompts,
    parse_metadata,
    plural,
    read_prompts,
    with_article,
    write_prompts,
)
from genloop.records import COLORS, RELATIONS, TAGS, Clause, Prompt

CLASSES = ("dog", "cat", "apple", "wine glass")
PROMPTS = [
    Prompt(0, "a photo of an apple", "single_object", (Clause("apple", 1),)),
    Prompt(1, "a photo of two dogs", "counting", (Clause("dog", 2),), (Clause("dog", 3),)),
    Prompt(2, "a photo of a dog above a cat", "position", (Clause("cat", 1), Clause("dog", 1, None, ("above", 0)))),
    Prompt(3, "a photo of an orange dog", "colors", (Clause("dog", 1, "orange"),)),
]

names = st.sampled_from(CLASSES)
clauses = st.builds(Clause, names, st.integers(1, 12), st.none() | st.sampled_from(COLORS))
texts = st.text(st.characters(exclude_characters="\n\r", exclude_categories=("Cs",)), min_size=1).filter(
    lambda text: text.strip() == text and not text.startswith("\ufeff")
)


@st.composite
def prompt_lists(draw: st.DrawFn) -> list[Prompt]:
    """Any prompts that the format can hold."""
    prompts = []
    for index in range(draw(st.integers(1, 5))):
        include = draw(st.lists(clauses, min_size=1, max_size=3))
        for target in range(1, len(include)):
            if draw(st.booleans()):
                position = (draw(st.sampled_from(RELATIONS)), draw(st.integers(0, target - 1)))
                clause = include[target]
                include[target] = Clause(clause.class_name, clause.count, clause.color, position)
        exclude = draw(st.lists(st.builds(Clause, names, st.integers(1, 5)), max_size=2))
        prompts.append(Prompt(index, draw(texts), draw(st.sampled_from(TAGS)), tuple(include), tuple(exclude)))
    return prompts


def write(folder: Path, prompts: bytes | None = None, metadata: bytes | None = None) -> tuple[Path | None, Path | None]:
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


def clause(**changes: Any) -> dict[str, Any]:
    """A line whose only clause has some keys changed; None removes one."""
    row = {"class": "dog", "count": 1, **changes}
    return line(include=[{key: value for key, value in row.items() if value is not None}])


def position(value: object) -> dict[str, Any]:
    return line(include=[{"class": "cat", "count": 1}, {"class": "dog", "count": 1, "position": value}])


@given(prompts=prompt_lists())
def test_what_is_written_is_read_back_and_written_the_same(prompts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("prompts")
    texts_file, metadata_file = write_prompts(folder, prompts)
    assert read_prompts(texts_file, metadata_file, classes=CLASSES) == prompts
    assert read_prompts(None, metadata_file) == prompts
    assert read_prompts(texts_file) == [Prompt(prompt.index, prompt.text) for prompt in prompts]
    assert encode_prompts(prompts) == (texts_file.read_bytes(), metadata_file.read_bytes())
    assert sorted(path.name for path in folder.iterdir()) == sorted([PROMPTS_FILE, METADATA_FILE])


def test_metadata_may_be_a_json_list_or_given_as_the_prompts(tmp_path):
    path = tmp_path / "all.json"
    path.write_text(json.dumps([prompt.metadata() for prompt in PROMPTS], indent=1))
    assert read_prompts(None, path) == PROMPTS
    assert read_prompts(path) == PROMPTS


def test_blanks_line_ends_and_a_byte_order_mark_do_not_matter(tmp_path):
    texts_file, _ = write(tmp_path, "\ufeffone \r\n two\r\n\r\n\n".encode())
    assert [prompt.text for prompt in read_prompts(texts_file)] == ["one", "two"]


def test_only_a_line_feed_ends_a_line(tmp_path):
    texts_file, _ = write(tmp_path, "a\u2028b\nc\x85d\n".encode())
    assert [prompt.text for prompt in read_prompts(texts_file)] == ["a\u2028b", "c\x85d"]


def test_limit_cuts_after_the_whole_file_was_checked(tmp_path):
    texts, metadata = encode_prompts(PROMPTS)
    assert read_prompts(*write(tmp_path, texts, metadata), limit=2) == PROMPTS[:2]
    with pytest.raises(ValueError, match=f"{METADATA_FILE}:4: "):
        read_prompts(*write(tmp_path, texts, metadata[:-20]), limit=2)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"prompts\.txt: no prompts"),
        (b"\n \n", r"prompts\.txt: no prompts"),
        (b"one\n\ntwo\n", r"prompts\.txt:2: empty"),
        (b"one\ntw\xff\n", r"prompts\.txt:2: .*UTF-8.*0xff .*column 3;"),
        ("one\n".encode("utf-16"), r"prompts\.txt:1: .*UTF-8"),
    ],
)
def test_a_bad_prompt_file_is_refused(tmp_path, data, message):
    texts_file, _ = write(tmp_path, data)
    with pytest.raises(ValueError, match=message) as caught:
        read_prompts(texts_file)
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
    ("texts", "message"),
    [
        ("a photo of a dog\na photo of a cat\n", r"txt:2: .*of a cat' .*of a dog' .*line 2"),
        ("a photo of a dog\n", r"jsonl: has 2 lines, .*txt has 1 prompts"),
        ("a photo of a dog\na photo of a dog\na\n", r"jsonl: has 2 lines, .*txt has 3 prompts"),
    ],
)
def test_metadata_of_other_prompts_is_refused(tmp_path, texts, message):
    metadata = (json.dumps(line()) + "\n").encode() * 2
    with pytest.raises(ValueError, match=message):
        read_prompts(*write(tmp_path, texts.encode(), metadata))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "jsonl: no prompts"),
        (b"[]", "jsonl: no prompts"),
        (b'{"tag": "colors",\n', r"jsonl:1: broken JSON: .* 18"),
        (b"GOOD\n\nGOOD\n", "jsonl:2: empty line"),
        (b'GOOD\nGOOD\n{"tag" "colors"}\n', r"jsonl:3: broken JSON: .* 8"),
        (b"GOOD\n\xc3\x28\n", r"jsonl:2: .*UTF-8.*0xc3 .*column 1;"),
        (b'[GOOD,\n{"tag": }]', r"jsonl: broken JSON .*line 2: .* 9"),
        (b"GOOD\n" + b"[" * 100_000, "jsonl:2: broken JSON"),
        (b"GOOD\n3\n", "jsonl:2: .*found 3"),
    ],
)
def test_a_broken_metadata_file_is_refused_with_its_line(tmp_path, data, message):
    _, metadata_file = write(tmp_path, None, data.replace(b"GOOD", json.dumps(line()).encode()))
    with pytest.raises(ValueError, match=message) as caught:
        read_prompts(None, metadata_file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (line(tag=None), "tag is missing"),
        (line(tag="color"), r"task 'color'; .*'colors'"),
        (line(tag=7), "tag .*found 7"),
        (line(prompt=None), "prompt is missing"),
        (line(prompt=""), "prompt must"),
        (line(prompt=" "), "prompt must .*one line"),
        (line(prompt="a \ud83d dog"), r"prompt .*\"a \\ud83d dog\""),
        (line(prompt="two\nlines"), "prompt must .*one line"),
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


def test_keys_of_other_tools_are_passed_over():
    row = line(index=4, detailed_caption="a very good dog")
    assert parse_metadata(row, 0, where="here") == parse_metadata(line(), 0, where="here")


def test_the_text_in_other_words_is_kept_for_those_who_ask():
    found = parse_metadata(line(detailed_caption=" a very good dog\n"), 0, where="here", text="detailed_caption")
    assert (found.text, found.condition) == (line()["prompt"], "a very good dog")
    assert found.metadata() == line() | {"detailed_caption": "a very good dog"}
    assert parse_metadata(line(), 0, where="here").condition == line()["prompt"]


def test_wording_follows_genevals_rules():
    assert [with_article(text) for text in ("apple", "dog", "hour", "orange dog")] == [
        *("an apple", "a dog", "a hour", "an orange dog")
    ]
    assert [plural(name) for name in ("dog", "bus", "bench")] == ["dogs", "buses", "benchs"]
    assert [caption(p.tag or "", p.include) for p in PROMPTS] == [p.text for p in PROMPTS]
    two = (Clause("apple", 1, "orange"), Clause("dog", 1, "black"))
    assert caption("two_object", two) == "a photo of an apple and a dog"
    assert caption("color_attr", two) == "a photo of an orange apple and a black dog"
    with pytest.raises(ValueError, match=r"did you mean 'counting'"):
        caption("count", two)


def test_a_text_that_the_format_cannot_hold_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="one line"):
        write_prompts(tmp_path, [Prompt(0, "two\nlines")])
    assert list(tmp_path.iterdir()) == []
