"""Chats from files and shards: what is read, and what is refused by file, row and key."""

import json

import pytest

from genloop.data.chats import ChatFile, ChatShards, parse_chat
from genloop.data.shards import Sample, write_shard

ASKED = {"role": "user", "content": "Is it dark?"}
ANSWER = {"role": "assistant", "content": "Yes."}


def test_parts_and_names_of_images_mean_the_same(tmp_path):
    parts = [{"type": "image", "image": "a.png"}, {"type": "text", "text": "Is it dark?"}]
    chats = [[{"role": "user", "content": parts}, ANSWER], [ASKED | {"images": ["a.png"]}, ANSWER]]
    (tmp_path / "chats.jsonl").write_text("\n".join(json.dumps({"messages": chat}) for chat in chats) + "\n")
    (tmp_path / "a.png").write_bytes(b"pixels")
    file = ChatFile(tmp_path / "chats.jsonl")
    assert file.row(0).messages == file.row(1).messages
    assert file.row(0).images == ["a.png"] and file.image(0, "a.png") == b"pixels"
    assert file.row(1).name.endswith("chats.jsonl:2")


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85"])
def test_only_a_line_feed_ends_a_row(tmp_path, mark):
    chat = {"messages": [{"role": "user", "content": f"a{mark}b"}, ANSWER]}
    (tmp_path / "chats.jsonl").write_text("\r\n".join([json.dumps(chat, ensure_ascii=False)] * 2), "utf-8")
    assert [ChatFile(tmp_path / "chats.jsonl").row(n).messages[0].text for n in range(2)] == [f"a{mark}b"] * 2


def test_llava_conversations_are_chats_too(tmp_path):
    said = [{"from": "human", "value": "<image>\nIs it?"}, {"from": "gpt", "value": "no"}]
    (tmp_path / "c.json").write_text(json.dumps([{"id": "7", "image": "a.png", "conversations": said}]))
    row = ChatFile(tmp_path / "c.json").row(0)
    assert [turn.text for turn in row.messages] == ["Is it?", "no"] and row.images == ["a.png"]


def test_each_round_of_a_sample_has_its_image_in_front(tmp_path):
    fields = {"0.png": b"first", "1.png": b"second", "2.png": b"result"}
    record = {"messages": [ASKED, ANSWER, ASKED, ANSWER]}
    write_shard(tmp_path / "0.tar", [Sample("k", {"json": json.dumps(record).encode(), **fields})])
    shards = ChatShards(tmp_path)
    assert [turn.images for turn in shards.row(0).messages] == [("0.png",), (), ("1.png",), ()]
    assert shards.image(0, "1.png") == b"second"


@pytest.mark.parametrize(
    ("messages", "key"),
    [
        (None, "messages"),
        ([], "messages"),
        ([ASKED], "messages"),
        ([ASKED, ANSWER, ASKED], "messages[2]"),
        ([ASKED, ANSWER | {"role": "asistant"}], "messages[1].role"),
        ([ASKED | {"content": " "}, ANSWER], "messages[0].content"),
        ([ASKED, ANSWER | {"content": ""}], "messages[1].content"),
        ([ASKED | {"content": 7}, ANSWER], "messages[0].content"),
        ([ASKED | {"images": ["../a.png"]}, ANSWER], "messages[0]"),
        ([ASKED, ANSWER | {"images": ["a.png"]}], "messages[1]"),
        ([ASKED, ASKED, ANSWER], "messages[1].role"),
        ([ANSWER], "messages[0].role"),
    ],
)
def test_chats_of_another_form_are_refused(messages, key):
    with pytest.raises(ValueError) as error:
        parse_chat({"messages": messages}, "f.jsonl:3")
    assert str(error.value).startswith(f"f.jsonl:3: {key}") and "\n" not in str(error.value)
