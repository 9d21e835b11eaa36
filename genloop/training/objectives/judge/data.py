"""What a judge is trained and measured on: examples in shards, published conversations, both split by prompt."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from genloop.data.judge.conversations import Conversation
from genloop.data.judge.dataset import JudgeSet, read_judge_set
from genloop.data.judge.examples import SPLITS, split_of

Recognize = Callable[[str], tuple[str, str] | None]  # text -> the question it asks and the prompt it is about


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


def read_sides(folders: Sequence[Path], conversations: dict[str, list[Conversation]]) -> tuple[JudgeData, JudgeData]:
    """The data to train on and the held-out data of some folders of shards; ValueError for cells of two worlds."""
    sides = [
        JudgeData([read_judge_set(folder / split) for folder in folders if (folder / split).is_dir()], said)
        for split, said in conversations.items()
    ]
    names = sides[0].cell_names
    if any(list(s.cell_names.values()) != names for side in sides for s in side.sets if s.cell_names):
        raise ValueError("data: the shards name their cells differently; train on one world")
    return sides[0], sides[1]


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
