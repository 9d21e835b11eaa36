"""Pairs as rows of tokens: the chats of conversations, of which a loss compares two by two.

A contrast sets a right side against a wrong one. Of bradley_terry and dpo a pair has one: the question with either
answer. Of verdict it has two, one for each order of the answers: the question which is better, with either verdict.
U = pairs, C = contrasts of a pair, K = tokens with a loss, S = sides, 2 U C of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from genloop.data.chats import ChatRow
from genloop.data.responses.pair import ResponsePairs
from genloop.models.qwen.chat import Chat
from genloop.models.qwen.images import Pictures
from genloop.records import ChatTurn
from genloop.rewards.responses.wording import SHORT, VERDICTS, Order, question_about
from genloop.training.objectives.conversations.batches import ChatBatch, collate
from genloop.training.objectives.conversations.documents import Document, Documents
from genloop.training.objectives.conversations.settings import ChatSettings
from genloop.training.objectives.response_pairs.settings import PairLoss

ORDERS: tuple[Order, Order] = ("as given", "swapped")


class PairChats:
    """Two chats a pair, as `Documents` reads them. Chat 2 i + k of pair i is

    the question and the k-th best answer, or for verdict the k-th order of both answers and the right verdict.
    """

    def __init__(self, pairs: ResponsePairs, best: np.ndarray, chat: Chat, loss: PairLoss) -> None:
        """`best` (N,): the place of the answer that counts as the better one."""
        self.pairs, self.best, self._chat, self._loss = pairs, best, chat, loss

    def __len__(self) -> int:
        return 2 * len(self.pairs)

    def row(self, number: int) -> ChatRow:
        place, side = divmod(number, 2)
        pair, best = self.pairs[place], int(self.best[place])
        if self._loss == "verdict":
            question = question_about(SHORT, pair.query, pair.responses, ORDERS[side])
            answer = VERDICTS[best if side == 0 else 1 - best]
        else:
            question, answer = pair.query, pair.responses[best if side == 0 else 1 - best]
        images = ("",) if self.pairs.image_bytes(place) is not None else ()
        asked = ChatTurn("user", self._chat.plain(question), images)
        name = f"{self.pairs.where}: row {place}, id {pair.id}"
        return ChatRow(name, (asked, ChatTurn("assistant", self._chat.plain(answer))))

    def image(self, number: int, name: str) -> bytes:
        data = self.pairs.image_bytes(number // 2)
        assert data is not None
        return data


@dataclass(frozen=True, eq=False)
class SideBatch:
    """Rows of chats, and which side each token with a loss belongs to; sides of a contrast are neighbours."""

    chats: ChatBatch
    sides: Tensor  # (K,) in [0, S)
    num_tokens: Tensor  # (S,) float32


class ResponseRows:
    """The documents of pairs, laid out for a loss."""

    def __init__(
        self,
        pairs: ResponsePairs,
        best: np.ndarray,
        chat: Chat,
        pictures: Pictures | None,
        settings: ChatSettings,
        loss: PairLoss,
    ) -> None:
        """ValueError where a verdict is not told by one token."""
        self.pairs, self.best, self.loss = pairs, best, loss
        chats = PairChats(pairs, best, chat, loss)
        self.documents = Documents([(chats, range(len(chats)))], chat, pictures, settings)
        self.contrasts = 2 if loss == "verdict" else 1
        if loss == "verdict":
            self._verdict_token, self._verdicts = verdict_tokens(chat)

    def __len__(self) -> int:
        return len(self.pairs)

    def sides(self, places: Sequence[int]) -> SideBatch:
        """Pairs by their places -> a batch."""
        documents = [self._document(2 * place + side) for place in places for side in range(2)]
        lengths = [len(document.targets) for document in documents]
        numbers = np.repeat(np.arange(len(lengths)), lengths)
        if self.loss == "verdict":  # one token a side
            numbers = np.arange(len(numbers))
        chats = collate([[document] for document in documents])
        return SideBatch(chats, torch.from_numpy(numbers), torch.from_numpy(np.bincount(numbers)).float())

    def _document(self, number: int) -> Document:
        """A chat whose targets are the answer without the token that closes it, or the right and the wrong verdict."""
        document = self.documents[number]
        if self.loss != "verdict":
            return replace(document, places=document.places[:-1], targets=document.targets[:-1])
        place, right = document.places[self._verdict_token], int(document.targets[self._verdict_token])
        wrong = next(token for token in self._verdicts if token != right)
        return replace(document, places=np.array([place, place]), targets=np.array([right, wrong]))


def verdict_tokens(chat: Chat) -> tuple[int, tuple[int, int]]:
    """Which token of a verdict tells them apart, and its two ids; ValueError where it takes more than one."""
    first, second = (chat.tokenizer.encode(verdict) for verdict in VERDICTS)
    differing = [place for place, (a, b) in enumerate(zip(first, second)) if a != b]
    if len(first) != len(second) or len(differing) != 1:
        raise ValueError(
            f"{chat.folder.folder}: the tokenizer has no token of its own for each of {', '.join(VERDICTS)}; "
            "use pairs.loss=bradley_terry or dpo"
        )
    place = differing[0]
    return place, (first[place], second[place])
