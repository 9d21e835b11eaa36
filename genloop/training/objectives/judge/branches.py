"""Chats about an image as token ids: every question or conversation about an image is one branch.

A branch is the sequence of ids that follows the image in one chat. Its supervised positions are those whose next token
enters the loss: the end of a yes/no question, every token of a written answer, and the last token of each shape or
colour name in a prompt (is this in the image?).

PARM asks for the potential in a second turn, after it asked for the clarity. When the tokens of the second chat begin
with those of the first, both questions are one branch with two supervised positions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np

from genloop.data.judge.conversations import IMAGE, says_yes
from genloop.data.judge.examples import QUESTIONS, JudgeExample
from genloop.data.prompts import plural
from genloop.models.llava.text import LlavaTokenizer
from genloop.training.objectives.conversations.encoding import encode_pieces, next_tokens, supervised_places

# Kinds of supervised positions: the number of a question in QUESTIONS, or one of these.
REASON, WORD, NAME = len(QUESTIONS), len(QUESTIONS) + 1, len(QUESTIONS) + 2
_CACHED = 1 << 14  # prompts whose branches are kept


class Chat(Protocol):
    """The texts around the turns of a chat."""

    @property
    def system(self) -> str: ...

    @property
    def user(self) -> str: ...

    @property
    def assistant(self) -> str: ...

    @property
    def end(self) -> str: ...


class Wording(Protocol):
    """The texts of a judge's questions. `pieces` are a chat cut at its image; a second turn is the last piece."""

    @property
    def chat(self) -> Chat: ...

    @property
    def names(self) -> Sequence[str]: ...

    def base(self, question: str) -> str: ...

    def pieces(self, question: str, prompt: str) -> list[str]: ...


@dataclass(frozen=True, eq=False)
class Branch:
    """One chat about an image: `prefix` ids, then the image, then `ids` (n,).

    supervised_positions (m,): places in `ids` whose next token enters the loss.
    kinds (m,):                the number of a question in QUESTIONS, REASON, WORD or NAME.
    targets (m,):              the next id for REASON and WORD, the number of the name for NAME, -1 for a question.
    """

    ids: np.ndarray
    supervised_positions: np.ndarray
    kinds: np.ndarray
    targets: np.ndarray
    prefix: tuple[int, ...]


class Branches:
    """Makes branches of examples and conversations. `names`: shapes and colours of all planes of cells, in order."""

    def __init__(self, wording: Wording, tokenizer: LlavaTokenizer, names: Sequence[str] = ()) -> None:
        self.wording, self.tokenizer = wording, tokenizer
        self.yes, self.no = tokenizer.word_id("yes"), tokenizer.word_id("no")
        self._names = _tokens_of_names(tokenizer, names)
        self._question_branches = lru_cache(_CACHED)(self._make_question_branches)
        self._reason_branch = lru_cache(_CACHED)(self._make_reason_branch)

    def of_example(self, example: JudgeExample, *, reason: bool = False) -> list[Branch]:
        """A branch for each question of the example that the wording knows; with `reason` also why it is wrong."""
        questions = tuple(q for q in QUESTIONS if q in self.wording.names and q in example.questions)
        found = list(self._question_branches(example.prompt.text, questions))
        if reason and example.reason and "reason" in self.wording.names:
            found.append(self._reason_branch(example.prompt.text, example.reason))
        return found

    def of_conversation(self, turns: Sequence[tuple[str, str]]) -> Branch:
        """All turns of a conversation; supervises every token of its answers and the one that closes each."""
        prefix, ids, answers = self._encode_turns(turns)
        ids += self.tokenizer.encode(self.wording.chat.end)[:1]
        return _next_token_branch(ids, supervised_places(answers, len(ids)), WORD, prefix)

    def of_yes_no_turns(self, turns: Sequence[tuple[str, str]]) -> Branch | None:
        """A conversation with positions in front of the answers that are yes or no; None when no answer is.

        `targets` are the numbers of the turns.
        """
        prefix, ids, answers = self._encode_turns(turns)
        asked = [number for number, (_, answer) in enumerate(turns) if says_yes(answer) is not None]
        if not asked:
            return None
        positions = np.array([answers[number].start - 1 for number in asked], dtype=np.int64)
        kinds, targets = np.full(len(asked), WORD), np.array(asked, dtype=np.int64)
        return Branch(np.array(ids[: positions[-1] + 1], dtype=np.int64), positions, kinds, targets, tuple(prefix))

    def _encode_turns(self, turns: Sequence[tuple[str, str]]) -> tuple[list[int], list[int], list[range]]:
        """-> ids before the image, ids after it, and the range of each answer in the latter."""
        chat = self.wording.chat
        before, after = turns[0][0].split(IMAGE)
        pieces: list[tuple[str, bool]] = []
        for number, (question, answer) in enumerate(turns):
            opening = after if number == 0 else chat.end + chat.user + question
            pieces += [(opening + chat.assistant, False), (answer, True)]
        ids, answers = encode_pieces(self.tokenizer.encode, pieces)
        return self.tokenizer.encode(chat.system + chat.user + before), ids, answers

    def _make_question_branches(self, prompt: str, questions: tuple[str, ...]) -> tuple[Branch, ...]:
        """One branch a question; clarity joins the branch of potential where that goes on from it."""
        chats = {question: self._encode_question(prompt, question) for question in questions}
        positions = {question: [(len(ids) - 1, question)] for question, (_, _, ids) in chats.items()}
        if {"clarity", "potential"} <= chats.keys() and self.wording.base("potential") == "clarity":
            _, first_turn, ids = chats["potential"]
            if ids[: len(first_turn)] == first_turn:
                positions["potential"].insert(0, (len(first_turn) - 1, "clarity"))
                del chats["clarity"]
        return tuple(self._with_names(prefix, ids, positions[question]) for question, (prefix, _, ids) in chats.items())

    def _encode_question(self, prompt: str, question: str) -> tuple[list[int], list[int], list[int]]:
        """-> ids before the image, ids after it to the end of the first turn, and to the end of the last."""
        before, first_turn, *more = self.wording.pieces(question, prompt)
        encode = self.tokenizer.encode
        return encode(before), encode(first_turn), encode("".join([first_turn, *more]))

    def _with_names(self, prefix: Sequence[int], ids: Sequence[int], asked: Sequence[tuple[int, str]]) -> Branch:
        """A branch supervised at its questions (position, name) and at the last token of every shape or colour."""
        rows = [(position, QUESTIONS.index(question), -1) for position, question in asked]
        rows += [
            (end, NAME, number)
            for tokens, number in self._names
            for end in range(len(tokens) - 1, len(ids))
            if tuple(ids[end - len(tokens) + 1 : end + 1]) == tokens
        ]
        positions, kinds, targets = (np.array(column, dtype=np.int64) for column in zip(*rows))
        return Branch(np.array(ids, dtype=np.int64), positions, kinds, targets, tuple(prefix))

    def _make_reason_branch(self, prompt: str, reason: str) -> Branch:
        prefix, question = (self.tokenizer.encode(piece) for piece in self.wording.pieces("reason", prompt))
        ids = [*question, *self.tokenizer.encode(reason), *self.tokenizer.encode(self.wording.chat.end)[:1]]
        return _next_token_branch(ids, range(len(question) - 1, len(ids) - 1), REASON, prefix)


def _next_token_branch(ids: Sequence[int], positions: Sequence[int], kind: int, prefix: Sequence[int]) -> Branch:
    """A branch whose positions predict the next id; the last of `ids` is a target only."""
    inputs, places, targets = next_tokens(ids, positions)
    return Branch(inputs, places, np.full(len(places), kind, dtype=np.int64), targets, tuple(prefix))


def _tokens_of_names(tokenizer: LlavaTokenizer, names: Sequence[str]) -> list[tuple[tuple[int, ...], int]]:
    """(ids, number) of every name in singular and plural, with and without the space that some tokenizers keep."""
    forms = [(form, number) for number, name in enumerate(names) for form in (name, plural(name))]
    found = [(tuple(tokenizer.encode(space + form)), number) for form, number in forms for space in ("", " ")]
    return list(dict.fromkeys(found))
