"""What is asked about an image, as ids: every question or conversation is a branch behind the image.

A branch holds all that follows one image in one chat: the question, the answer's first token is read at its end. A
second turn that goes on from the first is the same branch, read twice. `reads` are the positions of a branch whose next
token matters: for a yes/no question, for the words of an answer, or for a name in the sentence (is it in the image?).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import numpy as np

from genloop.data.judge.conversations import IMAGE, says_yes
from genloop.data.judge.examples import QUESTIONS, JudgeExample
from genloop.data.prompts import plural

ANSWER, WORD, NAME = len(QUESTIONS), len(QUESTIONS) + 1, len(QUESTIONS) + 2  # kinds of reads beside the questions


class Chat(Protocol):
    """What stands around the turns of a chat."""

    @property
    def system(self) -> str: ...

    @property
    def user(self) -> str: ...

    @property
    def assistant(self) -> str: ...

    @property
    def end(self) -> str: ...


class Wording(Protocol):
    """The questions of a judge, word for word; `pieces` cuts a chat at its image, a second turn comes last."""

    @property
    def chat(self) -> Chat: ...

    @property
    def names(self) -> Sequence[str]: ...

    def base(self, question: str) -> str: ...

    def pieces(self, question: str, prompt: str) -> list[str]: ...


class Tokenizer(Protocol):
    """Text -> ids; nothing is put in front or behind."""

    def encode(self, text: str) -> list[int]: ...

    def word_id(self, word: str) -> int: ...


@dataclass(frozen=True, eq=False)
class Branch:
    """Ids (n,) behind an image; `reads` (m,) positions, `kinds` (m,): a question's number, ANSWER, WORD or NAME.

    `targets` (m,): the next id for ANSWER (a reason) and WORD (a conversation), the number of the name for NAME, -1 for
    a question. `front`: the ids in front of the image.
    """

    ids: np.ndarray
    reads: np.ndarray
    kinds: np.ndarray
    targets: np.ndarray
    front: tuple[int, ...]


class Branches:
    """Examples and conversations -> branches. `names`: the names of cells in order (all planes)."""

    def __init__(self, wording: Wording, tokenizer: Tokenizer, names: Sequence[str] = ()) -> None:
        self.wording, self.tokenizer = wording, tokenizer
        self.yes, self.no = tokenizer.word_id("yes"), tokenizer.word_id("no")
        self._names = _words_of(tokenizer, names)
        self._asked = cache(self._ask)
        self._reasoned = cache(self._reason)

    def of(self, example: JudgeExample, *, reason: bool = False) -> list[Branch]:
        """The branches of an example, for the questions that the wording has; with `reason` also why it is wrong."""
        known = [question for question in QUESTIONS if question in self.wording.names]
        text, questions = example.prompt.text, tuple(question for question in known if question in example.questions)
        found = list(self._asked(text, questions))
        if reason and example.reason and "reason" in self.wording.names:
            found.append(self._reasoned(text, example.reason))
        return found

    def conversation(self, turns: Sequence[tuple[str, str]]) -> Branch:
        """All turns of a conversation; every token of an answer, and the first that closes it, is to be predicted."""
        front, whole, spans = self._spoken(turns)
        whole += self.tokenizer.encode(self.wording.chat.end)[:1]
        reads = [read for span in spans for read in range(span.start - 1, span.stop) if read + 1 < len(whole)]
        return _predicting(whole, reads, WORD, front)

    def answers(self, turns: Sequence[tuple[str, str]]) -> Branch | None:
        """The same, read in front of every answer that is yes or no; `targets` are the turns. None without any."""
        front, whole, spans = self._spoken(turns)
        asked = [number for number, (_, answer) in enumerate(turns) if says_yes(answer) is not None]
        if not asked:
            return None
        reads = np.array([spans[number].start - 1 for number in asked], dtype=np.int64)
        ids = np.array(whole[: reads[-1] + 1], dtype=np.int64)
        return Branch(ids, reads, np.full(len(asked), WORD), np.array(asked, dtype=np.int64), tuple(front))

    def _spoken(self, turns: Sequence[tuple[str, str]]) -> tuple[list[int], list[int], list[range]]:
        """-> ids in front of the image, ids behind it, and where the answers stand in these."""
        chat = self.wording.chat
        before, after = turns[0][0].split(IMAGE)
        whole: list[int] = []
        spans = []
        for number, (question, answer) in enumerate(turns):
            opening = after if number == 0 else chat.end + chat.user + question
            whole += self.tokenizer.encode(opening + chat.assistant)
            start = len(whole)
            whole += self.tokenizer.encode(answer)
            spans.append(range(start, len(whole)))
        return self.tokenizer.encode(chat.system + chat.user + before), whole, spans

    def _ask(self, text: str, questions: tuple[str, ...]) -> tuple[Branch, ...]:
        """One branch a question; a first turn that the second goes on from is read on the way."""
        chains = {question: self._chain(text, question) for question in questions}
        reads = {question: [(len(chain[-1]) - 1, question)] for question, chain in chains.items()}
        if {"clarity", "potential"} <= chains.keys() and self.wording.base("potential") == "clarity":
            _, first, whole = chains["potential"]
            if whole[: len(first)] == first:
                reads["potential"].insert(0, (len(first) - 1, "clarity"))
                del chains["clarity"]
        return tuple(self._named(chain[0], chain[-1], reads[question]) for question, chain in chains.items())

    def _chain(self, text: str, question: str) -> tuple[list[int], list[int], list[int]]:
        """-> ids in front of the image, behind it up to the first answer, and up to the answer that counts."""
        front, first, *more = self.wording.pieces(question, text)
        encode = self.tokenizer.encode
        return encode(front), encode(first), encode("".join([first, *more]))

    def _named(self, front: Sequence[int], ids: Sequence[int], reads: Sequence[tuple[int, str]]) -> Branch:
        """A branch with its questions, and a read at the last token of every name in it."""
        rows = [(position, QUESTIONS.index(question), -1) for position, question in reads]
        rows += [
            (end, NAME, number)
            for words, number in self._names
            for end in range(len(words) - 1, len(ids))
            if tuple(ids[end - len(words) + 1 : end + 1]) == words
        ]
        positions, kinds, targets = (np.array(column, dtype=np.int64) for column in zip(*rows))
        return Branch(np.array(ids, dtype=np.int64), positions, kinds, targets, tuple(front))

    def _reason(self, text: str, reason: str) -> Branch:
        front, opening = (self.tokenizer.encode(piece) for piece in self.wording.pieces("reason", text))
        whole = [*opening, *self.tokenizer.encode(reason), *self.tokenizer.encode(self.wording.chat.end)[:1]]
        return _predicting(whole, range(len(opening) - 1, len(whole) - 1), ANSWER, front)


def _predicting(whole: Sequence[int], reads: Sequence[int], kind: int, front: Sequence[int]) -> Branch:
    """Reads that predict the next id of `whole`, whose last id is only predicted."""
    targets = np.array([whole[read + 1] for read in reads], dtype=np.int64)
    kinds = np.full(len(reads), kind, dtype=np.int64)
    return Branch(np.array(whole[:-1], dtype=np.int64), np.array(reads, dtype=np.int64), kinds, targets, tuple(front))


def _words_of(tokenizer: Tokenizer, names: Sequence[str]) -> list[tuple[tuple[int, ...], int]]:
    """(ids, number) of every name: alone, in the plural, and behind a space, which some tokenizers keep."""
    forms = [(form, number) for number, name in enumerate(names) for form in (name, plural(name))]
    found = [(tuple(tokenizer.encode(space + form)), number) for form, number in forms for space in ("", " ")]
    return list(dict.fromkeys(found))
