"""Plain chats as JSON lines: {"id", "split", "license", "instruction", "messages"}, images beside.

`messages` are {"role", "content", "images"}, as genloop/data/chats.py reads them; where none names an image, the k-th
of a list `images` beside them belongs to the k-th turn of the user. Read back, answers in this suite's form become
diagnoses and actions; others stay texts.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from genloop.data.irg.exports import UnitFiles
from genloop.data.irg.exports.lazy import Read, files_of, read_lines
from genloop.data.irg.exports.looks import Seen, read_file, read_looks, record_of
from genloop.data.irg.record import Message
from genloop.data.irg.text import PREFIXES, read_answer
from genloop.data.shards import Sample
from genloop.rundir import json_line

_ASKED = PREFIXES[0]


class ChatLines:
    """One line a trace that has a conversation."""

    def write(self, unit: str, samples: Sequence[Sample], sink: UnitFiles) -> list[str]:
        """exported/UNIT.jsonl and images/KEY.0.png, ... -> the traces without a conversation."""
        lines, left_out = [], []
        for sample in samples:
            record = record_of(sample)
            if not record.messages:
                left_out.append(record.id)
                continue
            names = [name for message in record.messages for name in message.images]
            for name in dict.fromkeys(names):
                sink.file(f"images/{record.id}.{name}", sample.fields[name])
            row = {
                "id": record.id,
                "split": record.split,
                "license": record.license,
                "instruction": record.instruction,
                "messages": [_message(message, record.id) for message in record.messages],
            }
            lines.append(json_line(row))
        sink.file(f"exported/{unit}.jsonl", b"".join(lines))
        return left_out

    def read(self, source: Path) -> Sequence[Sample]:
        """All chats at or below a folder, roles and numbers of images checked."""
        rows = read_lines(files_of(source, ".jsonl"), ("messages",))
        for row, where in rows:
            _check(row, where)
        folder = source if source.is_dir() else source.parent
        return Read(len(rows), lambda place: _trace(folder, *rows[place]))


def _message(message: Message, key: str) -> dict[str, Any]:
    images = [f"images/{key}.{name}" for name in message.images]
    return {"role": message.role, "content": message.content} | ({"images": images} if images else {})


def _images(row: dict[str, Any]) -> list[Any]:
    """One for each turn of the user."""
    named = [message["images"][0] for message in row["messages"] if message.get("images")]
    return named or list(row.get("images") or ())


def _check(row: dict[str, Any], where: str) -> None:
    messages = row["messages"]
    if not isinstance(messages, list) or not isinstance(row.get("images") or [], list):
        raise ValueError(f"{where}: messages and images must be lists")
    for place, message in enumerate(messages):
        is_turn = isinstance(message, dict) and isinstance(message.get("content"), str)
        if not is_turn or message.get("role") not in ("system", "user", "assistant"):
            raise ValueError(f"{where}: messages.{place} must have a role (system, user, assistant) and a content")
        if not isinstance(message.get("images") or [], list):
            raise ValueError(f"{where}: messages.{place}.images must be a list")
    images = _images(row)
    turns = sum(message["role"] == "user" for message in messages)
    if turns != len(images) or not turns:
        raise ValueError(f"{where}: {len(images)} images for {turns} turns of the user; each needs one")


def _trace(folder: Path, row: dict[str, Any], where: str) -> Sample:
    questions = [message["content"] for message in row["messages"] if message["role"] == "user"]
    answers = [message["content"] for message in row["messages"] if message["role"] == "assistant"]
    answers += [""] * (len(questions) - len(answers))
    seen = [_seen(read_file(folder, name, where), text) for name, text in zip(_images(row), answers)]
    asked = [line for line in questions[0].split("\n") if line.startswith(_ASKED)]
    instruction = str(row.get("instruction") or (asked[0].removeprefix(_ASKED) if asked else questions[0]))
    key = str(row.get("id") or where.rpartition("/")[2].replace(":", "-"))
    made = read_looks(key, instruction, seen, told=row, source="chat")
    messages, turn = [], 0
    for message in row["messages"]:
        is_user = message["role"] == "user"
        about = (f"{turn}.png",) if is_user else ()
        turn += is_user
        messages.append(Message(role=message["role"], content=message["content"], images=about))
    record = record_of(made).model_copy(update={"messages": tuple(messages)})
    return Sample(made.key, {**made.fields, "json": record.to_json()})


def _seen(image: bytes, text: str) -> Seen:
    """A look with what its answer says in JSON, where it has this suite's form."""
    try:
        said = read_answer(text)
    except ValueError:
        return Seen(image, text)
    return Seen(image, said.reasoning, diagnosis=said.diagnosis, actions=said.actions)
