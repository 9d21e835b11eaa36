"""Chats to train on, from files or shards: who says what, and which images stand in front of which text.

chats.jsonl       {"messages": [{"role": "user", "content": "...", "images": ["a.png"]}, ...]} a line; images are
                  files below a folder. Contents may be lists of parts: {"type": "text", "text": ...} and
                  {"type": "image", "image": "a.png"}
chats.json        LLaVA's list of conversations with one image each
shards            KEY.json with "messages" (build_irg writes them); images are fields of the sample.
                      Where no message names any, the k-th text of the user has KEY.k.png in front
"""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from genloop.data.judge.conversations import IMAGE, Conversation, read_conversations
from genloop.data.shards import Sample, Shards
from genloop.reading import parse_json, read_bytes, read_utf8
from genloop.records import ROLES, ChatTurn
from genloop.registry import did_you_mean
from genloop.rundir import check_inside

_NEXT = {"": ("system", "user"), "system": ("user",), "user": ("assistant",), "assistant": ("user",)}  # who may speak
_IMAGE_FIELD = re.compile(r"(?:(\d+)\.)?(?:png|jpg|jpeg|webp)")


@dataclass(frozen=True, slots=True)
class ChatRow:
    """One chat; `name` is its file and row, as errors tell it."""

    name: str
    messages: tuple[ChatTurn, ...]

    @property
    def images(self) -> list[str]:
        """All images in order."""
        return [image for message in self.messages for image in message.images]


class Chats(Protocol):
    """A source of chats; FileNotFoundError or ValueError in one line that names file, row and key."""

    def __len__(self) -> int: ...

    def row(self, number: int) -> ChatRow: ...

    def image(self, number: int, name: str) -> bytes: ...


class ChatFile:
    """A file of chats (.jsonl, or .json of LLaVA) with images below a folder; by default the folder of the file."""

    def __init__(self, path: Path, images: Path | None = None) -> None:
        self.path, self.images = path, images or path.parent
        if path.suffix == ".json":
            self._rows = [_of_conversation(path, said) for said in read_conversations(path, Path())]
            return
        lines = [(line, f"{path}:{number}") for number, line in enumerate(read_utf8(path).split("\n"), 1)]
        self._rows = [parse_chat(parse_json(line, where), where) for line, where in lines if line.strip()]
        if not self._rows:
            raise ValueError(f"{path}: holds no chats")

    def __len__(self) -> int:
        return len(self._rows)

    def row(self, number: int) -> ChatRow:
        return self._rows[number]

    def image(self, number: int, name: str) -> bytes:
        """The bytes of an image file."""
        try:
            return read_bytes(self.images / name)
        except (FileNotFoundError, ValueError) as error:
            raise ValueError(f"{self._rows[number].name}: image {name!r}: {error}") from None


class ChatShards:
    """Samples of shards that hold messages."""

    def __init__(self, folder: Path) -> None:
        self.shards = Shards(folder)

    def __len__(self) -> int:
        return len(self.shards)

    def row(self, number: int) -> ChatRow:
        sample = self.shards.read(number, ["json"])
        if "json" not in sample.fields:
            raise ValueError(f"{sample.name}: needs a json field with messages")
        value = parse_json(sample.fields["json"], sample.name)
        row = parse_chat(value, sample.name)
        return row if row.images else _with_fields(row, self.shards.fields, sample, self.shards, number)

    def image(self, number: int, name: str) -> bytes:
        """The bytes of a field."""
        sample = self.shards.read(number, [name])
        if name not in sample.fields:
            raise ValueError(f"{sample.name}: has no field {name!r}, which its messages name")
        return sample.fields[name]


def parse_chat(value: Any, where: str) -> ChatRow:
    """{"messages": [...]} -> a chat with a turn of the assistant at its end; ValueError names `where` and the key."""
    messages = value.get("messages") if isinstance(value, Mapping) else None
    if not isinstance(messages, list) or not messages:
        raise ValueError(f"{where}: messages: needs a list of {{role, content}}")
    found = [_message(one, f"{where}: messages[{number}]") for number, one in enumerate(messages)]
    if not any(message.role == "assistant" for message in found):
        raise ValueError(f"{where}: messages: no turn of the assistant to learn from")
    if found[-1].role != "assistant":
        raise ValueError(f"{where}: messages[{len(found) - 1}]: the last turn must be of the assistant")
    for number, message in enumerate(found):
        wanted = _NEXT[found[number - 1].role if number else ""]
        if message.role not in wanted:
            raise ValueError(
                f"{where}: messages[{number}].role: {message.role!r} where {' or '.join(wanted)} must speak"
            )
    return ChatRow(where, tuple(found))


def _message(value: Any, where: str) -> ChatTurn:
    if not isinstance(value, Mapping):
        raise ValueError(f"{where}: needs role and content")
    role = value.get("role")
    if role not in ROLES:
        raise ValueError(f"{where}.role: unknown role {role!r}{did_you_mean(str(role), ROLES)} ({', '.join(ROLES)})")
    text, images = _content(value.get("content"), f"{where}.content")
    named = value.get("images", [])
    if not isinstance(named, list):
        raise ValueError(f"{where}.images: needs a list of names")
    if not text.strip():
        raise ValueError(f"{where}.content: is empty")
    if (images or named) and role != "user":
        raise ValueError(f"{where}: images stand in turns of the user only")
    return ChatTurn(role, text, tuple(_inside(name, where) for name in (*images, *named)))


def _content(value: Any, where: str) -> tuple[str, list[Any]]:
    """-> text and names of images, of a text or of a list of parts with the images first."""
    if isinstance(value, str):
        return value, []
    if not isinstance(value, list):
        raise ValueError(f"{where}: needs a text or a list of parts")
    texts, images = [], []
    for number, part in enumerate(value):
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind == "text" and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif kind == "image" and not texts:
            images.append(part.get("image"))
        else:
            raise ValueError(f"{where}[{number}]: needs type text with a text, or type image in front of all texts")
    return "".join(texts), images


def _inside(name: Any, where: str) -> str:
    try:
        return check_inside(name)
    except ValueError as error:
        raise ValueError(f"{where}: image {error}") from None


def _of_conversation(path: Path, said: Conversation) -> ChatRow:
    """One of LLaVA's: its image stands in front of the first text."""
    messages = []
    for question, answer in said.turns:
        messages += [ChatTurn("user", question.replace(IMAGE, "").strip()), ChatTurn("assistant", answer)]
    messages[0] = replace(messages[0], images=(said.image.as_posix(),))
    values = [{"role": message.role, "content": message.text, "images": list(message.images)} for message in messages]
    return parse_chat({"messages": values}, f"{path}: conversation {said.key}")


def _with_fields(row: ChatRow, names: Iterable[str], sample: Sample, shards: Shards, number: int) -> ChatRow:
    """The k-th text of the user gets the k-th image of the sample."""
    wanted: Collection[str] = [name for name in names if _IMAGE_FIELD.fullmatch(name)]
    if not wanted:
        return row
    fields = shards.read(number, wanted).fields
    by_round = {int(match[1] or 0): name for name in fields if (match := _IMAGE_FIELD.fullmatch(name))}
    messages, place = [], 0
    for message in row.messages:
        if message.role == "user":
            message = replace(message, images=tuple(name for name in [by_round.get(place)] if name))
            place += 1
        messages.append(message)
    return replace(row, messages=tuple(messages))
