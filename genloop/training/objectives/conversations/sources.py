"""Where chats come from: the sides of every data set, to train on and held out. No torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from genloop.data.chats import ChatFile, Chats, ChatShards
from genloop.data.judge.examples import split_of
from genloop.hashing import sha256_tree
from genloop.training.objectives.conversations.settings import ChatData


@dataclass(frozen=True, eq=False)
class Sides:
    """Chats to train on and held-out ones, each source with the numbers of its chats; digests by config key."""

    train: list[tuple[Chats, list[int]]] = field(default_factory=list)
    val: list[tuple[Chats, list[int]]] = field(default_factory=list)
    digests: dict[str, str] = field(default_factory=dict)

    def texts(self) -> chain[str]:
        """All that is said on the side that is trained on."""
        rows = (source.row(number) for source, numbers in self.train for number in numbers)
        return chain.from_iterable([message.text for message in row.messages] for row in rows)


def open_sides(data: Mapping[str, ChatData], seed: int) -> Sides:
    """Open every data set; FileNotFoundError or ValueError in one line that names the key.

    Shards in folders train and val are split already; of all others `val_share` is held out by the first text of the
    user, so equal questions stay on one side.
    """
    sides = Sides()
    for name, one in data.items():
        if one.pairs is not None:
            raise ValueError(f"data.{name}.pairs: pairs of answers need objective=pairs")
        key = f"data.{name}.{'shards' if one.shards is not None else 'chats'}"
        try:
            _open(one, key, sides, seed)
        except (FileNotFoundError, ValueError) as error:
            raise type(error)(f"{key}: {error}") from None
    if not any(numbers for _, numbers in sides.train):
        raise ValueError("data: no chat is left to train on; use a smaller val_share")
    return sides


def _open(one: ChatData, key: str, sides: Sides, seed: int) -> None:
    if one.chats is not None:
        source: Chats = ChatFile(one.chats, one.images)
        sides.digests[key] = sha256_tree(one.chats)
        if one.images is not None:
            sides.digests[f"{key} images"] = sha256_tree(one.images)
    else:
        assert one.shards is not None
        if (one.shards / "train").is_dir():
            _open_split(one.shards, one, key, sides)
            return
        shards = ChatShards(one.shards)
        source, sides.digests[key] = shards, shards.shards.digest()
    chosen: dict[str, list[int]] = {"train": [], "val": []}
    for number in range(min(len(source), one.limit or len(source))):
        asked = next(message.text for message in source.row(number).messages if message.role == "user")
        chosen[split_of(asked, seed, one.val_share)].append(number)
    sides.train.append((source, chosen["train"]))
    sides.val.append((source, chosen["val"]))


def _open_split(folder: Path, one: ChatData, key: str, sides: Sides) -> None:
    for side, found in (("train", sides.train), ("val", sides.val)):
        if (folder / side).is_dir():
            shards = ChatShards(folder / side)
            found.append((shards, list(range(min(len(shards), one.limit or len(shards))))))
            sides.digests[f"{key}.{side}"] = shards.shards.digest()
