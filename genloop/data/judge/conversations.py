"""LLaVA's conversation files, as published with ORM and PARM: a JSON list of images with turns of a human and a model.

[{"id": "7", "image": "7/0001.png", "conversations": [{"from": "human", "value": "<image>\\nIs it ...?"},
                                                      {"from": "gpt", "value": "yes"}]}, ...]
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genloop.reading import read_json

IMAGE = "<image>"
_SPEAKERS = ("human", "gpt")


@dataclass(frozen=True, slots=True)
class Conversation:
    """One image and what is said about it: (what the human says, what the model should answer), turn by turn."""

    key: str
    image: Path
    turns: tuple[tuple[str, str], ...]


def read_conversations(path: Path, images: Path) -> list[Conversation]:
    """The conversations of a file; image names are below `images`. Raises FileNotFoundError or ValueError, one line."""
    entries = read_json(path)
    if not isinstance(entries, list) or not entries:
        found = "an empty one" if entries == [] else type(entries).__name__
        raise ValueError(f"{path}: expected a JSON list of conversations, found {found}")
    return [_conversation(entry, images, f"{path}: entry {number}") for number, entry in enumerate(entries, 1)]


def says_yes(answer: str) -> bool | None:
    """Whether an answer is yes; None when it is neither yes nor no."""
    return {"yes": True, "no": False}.get(answer.strip().rstrip(".").lower())


def check_images(conversations: Sequence[Conversation], where: object) -> None:
    """FileNotFoundError in one line when images are missing: the first of them, and how many."""
    missing = [said for said in conversations if not said.image.is_file()]
    if missing:
        share = f"{len(missing)} of {len(conversations)} images are missing"
        raise FileNotFoundError(f"{where}: {share}, the first is {missing[0].image} of conversation {missing[0].key}")


def _conversation(entry: Any, images: Path, where: str) -> Conversation:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("image"), str):
        raise ValueError(f"{where}: needs an `image` and `conversations`")
    turns = entry.get("conversations")
    if not isinstance(turns, list) or not turns or len(turns) % 2:
        raise ValueError(f"{where}: conversations must be turns of human and gpt, the last one of gpt")
    said = []
    for number, turn in enumerate(turns):
        speaker = _SPEAKERS[number % 2]
        if not isinstance(turn, Mapping) or turn.get("from") != speaker or not isinstance(turn.get("value"), str):
            raise ValueError(f"{where}: conversations[{number}] must be a text from {speaker!r}")
        said.append(turn["value"])
    if [text.count(IMAGE) for text in said] != [1] + [0] * (len(said) - 1):
        raise ValueError(f"{where}: {IMAGE} must stand once, in the first turn")
    key = str(entry.get("id", where.rpartition(" ")[2]))
    return Conversation(key, images / entry["image"], tuple(zip(said[::2], said[1::2], strict=True)))
