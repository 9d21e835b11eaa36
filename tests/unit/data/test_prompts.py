"""Prompt files: what is good comes back as it was, what is bad is refused with one line that says where."""

import json

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
from tests.worlds.prompt_files import line, write_files

CLASSES = ("dog", "cat", "apple", "wine glass")
PROMPTS = [
    Prompt(0, "a photo of an apple", "single_object", (Clause("apple", 1),)),
    Prompt(1, "a photo of two dogs", "counting", (Clause("dog", 2),), (Clause("dog", 3),)),
    Prompt(2, "a photo of a dog above a cat", "position", (Clause("cat", 1), Clause("dog", 1, None, ("above", 0)))),
    Prompt(3, "a photo of an orange dog", "colors", (Clause("dog", 1, "orange"),)),
]

names = st.sampled_from(CLASSES)
clauses = st.builds(Clause, names, st.integers(1, 12), st.none() | st.sampled_from(COLORS))
texts = st.text(st.characters(exclude_characters="\n\r\0", exclude_categories=("Cs",)), min_size=1).filter(
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
    texts_file, _ = write_files(tmp_path, "\ufeffone \r\n two\r\n\r\n\n".encode())
    assert [prompt.text for prompt in read_prompts(texts_file)] == ["one", "two"]


def test_only_a_line_feed_ends_a_line(tmp_path):
    texts_file, _ = write_files(tmp_path, "a\u2028b\nc\x85d\n".encode())
    assert [prompt.text for prompt in read_prompts(texts_file)] == ["a\u2028b", "c\x85d"]


def test_limit_cuts_after_the_whole_file_was_checked(tmp_path):
    texts, metadata = encode_prompts(PROMPTS)
    assert read_prompts(*write_files(tmp_path, texts, metadata), limit=2) == PROMPTS[:2]
    with pytest.raises(ValueError, match=f"{METADATA_FILE}:4: "):
        read_prompts(*write_files(tmp_path, texts, metadata[:-20]), limit=2)


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
    for text in ("two\nlines", "two\rlines", "a NUL \0 byte", "\ufeffa mark"):
        with pytest.raises(ValueError, match="one line"):
            write_prompts(tmp_path, [Prompt(0, text)])
    assert list(tmp_path.iterdir()) == []


def test_a_key_that_looks_like_one_that_is_there_is_a_key_of_somebody_elses():
    row = {"tag": "single_object", "include": [{"class": "dog", "count": 1}], "prompt": "a photo of a dog"}
    assert parse_metadata(row | {"prompts": ["a", "b"], "tags": "x"}, 0, where="a:1").text == "a photo of a dog"
    row["includes"] = row.pop("include")
    with pytest.raises(ValueError, match="unknown key 'includes'; did you mean 'include'"):
        parse_metadata(row, 0, where="a:1")
