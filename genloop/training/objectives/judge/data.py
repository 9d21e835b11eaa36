"""What a judge is trained and measured on: examples in shards, published conversations, both split by prompt."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from genloop.data.judge.conversation_examples import Recognize
from genloop.data.judge.conversations import Conversation
from genloop.data.judge.dataset import JudgeSet, read_judge_set
from genloop.data.judge.examples import SPLITS, JudgeExample, from_sample, split_of
from genloop.data.shards import Shards


@dataclass(frozen=True, eq=False)
class JudgeShards:
    """The opened shards of one data set, the first example that is trained on, and how often they are drawn from."""

    train: Shards
    val: Shards | None
    first: JudgeExample
    weight: float = 1.0


@dataclass(frozen=True, eq=False)
class JudgeData:
    """One side of the split: examples of several data sets, and conversations."""

    sets: Sequence[JudgeSet] = ()
    conversations: Sequence[Conversation] = ()

    @property
    def cell_names(self) -> list[list[str]]:
        """The names of each plane of cells; none where no data set has cells."""
        return next((list(data.cell_names.values()) for data in self.sets if data.cell_names), [])

    @property
    def is_empty(self) -> bool:
        """Whether there is neither an example nor a conversation."""
        return not (any(self.sets) or self.conversations)


def open_shards(folder: Path, where: str, weight: float = 1.0) -> JudgeShards:
    """Open FOLDER/train and FOLDER/val; ValueError when shards are torn or their first sample is no example."""
    if not (folder / "train").is_dir():
        raise ValueError(f"{where}: {folder} holds no folder train; build_judge_data writes it")
    found: list[tuple[Shards, JudgeExample]] = []
    for side in (folder / "train", folder / "val"):
        if side.is_dir():
            try:
                shards = Shards(side)
                found.append((shards, from_sample(shards[0])))
            except ValueError as error:
                raise ValueError(f"{where}: {side}: {error}") from None
    train, first = found[0]
    return JudgeShards(train, found[1][0] if len(found) > 1 else None, first, weight)


def read_sides(
    sets: Sequence[JudgeShards], conversations: Mapping[str, Sequence[Conversation]]
) -> tuple[JudgeData, JudgeData]:
    """The data to train on and the held-out data; ValueError for cells of two worlds."""
    train = JudgeData([read_judge_set(one.train) for one in sets], conversations["train"])
    val = JudgeData([read_judge_set(one.val) for one in sets if one.val is not None], conversations["val"])
    names = train.cell_names
    if any(list(one.cell_names.values()) != names for one in (*train.sets, *val.sets) if one.cell_names):
        raise ValueError("data: the shards name their cells differently; train on one world")
    return train, val


def split_conversations(
    files: Iterable[tuple[Sequence[Conversation], float]], recognize: Recognize, seed: int
) -> dict[str, list[Conversation]]:
    """(conversations, share that is held out) of each file -> split ("train", "val") -> conversations."""
    sides: dict[str, list[Conversation]] = {split: [] for split in SPLITS}
    for conversations, val_share in files:
        for conversation in conversations:
            _, prompt = asked_in(conversation.turns, 0, recognize)
            sides[split_of(prompt, seed, val_share)].append(conversation)
    return sides


def asked_in(turns: Sequence[tuple[str, str]], turn: int, recognize: Recognize) -> tuple[str, str]:
    """The question that a turn asks and its prompt; ("words", the first turn's text) for unknown wording."""
    _, prompt = recognize(turns[0][0]) or ("words", turns[0][0])
    question, _ = recognize(turns[turn][0]) or ("words", "")
    return question, prompt
