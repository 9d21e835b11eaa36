"""What enters the loss of a chat, how long chats are cut, how documents are packed, and the audit of it all."""

import json
from pathlib import Path

import numpy as np
import pytest

from genloop.data.chats import ChatFile
from genloop.models.qwen.chat import Chat
from genloop.models.qwen.config import check_chat_folder
from genloop.models.qwen.images import Pictures
from genloop.training.objectives.conversations.audit import audit, check_share, spans_of
from genloop.training.objectives.conversations.documents import Documents
from genloop.training.objectives.conversations.encoding import encode_pieces, supervised_places
from genloop.training.objectives.conversations.packs import pack_documents
from genloop.training.objectives.conversations.settings import ChatSettings
from tests.worlds.tiny_qwen import qwen_folder, write_chats

END = "<|im_end|>"


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("models")
    for name in ("text", "vl"):
        qwen_folder(place / name, name)
    write_chats(place, count=4)
    return place


def documents(folders: Path, name: str, file: Path | None = None, **keys) -> Documents:
    chat = Chat(check_chat_folder(folders / name))
    source = ChatFile(file or folders / "chats.jsonl")
    pictures = Pictures(chat.folder) if chat.folder.sees else None
    return Documents([(source, range(len(source)))], chat, pictures, ChatSettings(**keys))


def test_answers_and_the_tokens_that_close_them_have_a_loss_and_nothing_else():
    ids, answers = encode_pieces(list, [("ab", False), ("cd", True), (".ef", False), ("g", True), (".", False)])
    assert "".join(ids) == "abcd.efg."
    assert [ids[place + 1] for place in supervised_places(answers, len(ids))] == ["c", "d", ".", "g", "."]


@pytest.mark.parametrize(("supervise", "spans"), [("all", 2), ("last", 1)])
def test_all_turns_or_the_last_one_are_learned(folders, supervise, spans):
    found = documents(folders, "text", supervise=supervise)
    texts = [turn.text + END for turn in found.row(0).messages if turn.role == "assistant"]
    assert spans_of(found[0], found) == texts[-spans:]


def test_images_stand_whole_in_front_of_their_text(folders):
    found = documents(folders, "vl")
    document, token = found[0], found.chat.folder.image_token
    assert document.image_tokens == document.images[0].num_tokens == 6
    assert not np.isin(document.targets, token).any()
    assert [len(documents(folders, "text")[0]) + 7] == [len(document) - 1]  # the text, and the marks around the image
    assert spans_of(document, found) == spans_of(documents(folders, "text")[0], documents(folders, "text"))


@pytest.mark.parametrize("name", ["text", "vl"])
def test_a_long_chat_is_cut_in_the_users_text_alone(folders, name):
    whole, most = documents(folders, name)[1], len(documents(folders, name)[1]) - 9
    cut = documents(folders, name, max_length=most, too_long="cut")[1]
    assert len(cut) == most and cut.lost_tokens == 9
    assert cut.image_tokens == whole.image_tokens
    assert cut.targets.tolist() == whole.targets.tolist()


def of_text(folders: Path, place: Path, asked: str, answer: str, **keys) -> Documents:
    """One chat, whose texts are cut."""
    said = [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
    (place / "own.jsonl").write_text(json.dumps({"messages": said}) + "\n")
    return documents(folders, "text", place / "own.jsonl", too_long="cut", **keys)


def test_a_character_that_is_cut_in_two_goes_whole(folders, tmp_path):
    whole = len(of_text(folders, tmp_path, "\u732b\u732b\u732bab", "Yes.")[0])  # three bytes a character
    found = of_text(folders, tmp_path, "\u732b\u732b\u732bab", "Yes.", max_length=whole - 4)
    assert "\u732bab" in (text := found.chat.tokenizer.decode(found[0].ids)) and "\ufffd" not in text
    assert len(found[0]) == whole - 6 and found[0].lost_tokens == 6


def test_cutting_ends_where_nothing_of_the_user_is_left_but_part_of_a_character(folders, tmp_path):
    with pytest.raises(ValueError, match="answers are not cut"):
        audit(of_text(folders, tmp_path, "\u732b", "No. " * 40, max_length=100))


def test_too_long_chats_are_refused_left_out_or_cut_and_told(folders):
    lengths = [len(documents(folders, "text")[number]) for number in range(4)]
    most = max(lengths) - 1
    with pytest.raises(ValueError, match=r"chats.jsonl:\d+: .*chat.max_length"):
        audit(documents(folders, "text", max_length=most))
    dropped = audit(documents(folders, "text", max_length=most, too_long="drop")).report
    assert dropped["kept"] == sum(length <= most for length in lengths) == 4 - dropped["dropped"]["too_long"]
    cut = audit(documents(folders, "text", max_length=most, too_long="cut")).report
    assert cut["kept"] == 4 and cut["cut"]["documents"] == 4 - dropped["kept"] and cut["cut"]["user_tokens"] > 0
    with pytest.raises(ValueError, match="answers are not cut"):
        audit(documents(folders, "text", max_length=20, too_long="cut"))


def test_the_audit_counts_what_training_sees(folders):
    found = documents(folders, "vl")
    report = audit(found).report
    assert report["loss_tokens"] == sum(len(found[number].targets) for number in range(4))
    assert report["tokens"] == sum(len(found[number]) for number in range(4))
    assert report["images"] == 4 and report["image_tokens"] == 24 and report["image_tokens_missing"] == 0
    assert report["spans"][0]["spans"] == spans_of(found[0], found)
    assert audit(documents(folders, "text")).report["images_not_taken"] == 4


@pytest.mark.parametrize(("share", "kept"), [(0.0, 3), (1.0, 3), (0.5, 0)])
def test_learning_nothing_or_everything_stops(share, kept):
    with pytest.raises(ValueError, match=r"^data: "):
        check_share(share, kept, 3)


@pytest.mark.parametrize("change", ["broken", "missing", "special"])
def test_what_cannot_be_read_is_named_by_file_and_row(folders, tmp_path, change):
    file = write_chats(tmp_path, count=2)
    if change == "broken":
        (tmp_path / "01.png").write_bytes((tmp_path / "01.png").read_bytes()[:40])
    elif change == "missing":
        (tmp_path / "01.png").unlink()
    else:
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        rows[1]["messages"][0]["content"] += END
        file.write_text("\n".join(map(json.dumps, rows)) + "\n")
    with pytest.raises(ValueError, match=r"chats.jsonl:2: ") as error:
        audit(documents(folders, "vl", file))
    assert "\n" not in str(error.value)


def test_packs_hold_every_document_once_and_no_more_than_fits():
    lengths = np.random.default_rng(0).integers(1, 60, 200).tolist()
    rows = pack_documents(lengths, 64)
    assert sorted(number for row in rows for number in row) == list(range(200))
    assert max(sum(lengths[number] for number in row) for row in rows) <= 64
    assert len(rows) <= 1.1 * sum(lengths) / 64
    assert rows == pack_documents(lengths, 64)
    with pytest.raises(ValueError, match="document 1"):
        pack_documents([3, 9], 8)
