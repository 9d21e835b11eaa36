"""Chats as documents: what a row of a batch is made of, read from any source for one model's tokenizer and images.

n = tokens of a document, m = those with a loss.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from genloop.data.chats import ChatRow, Chats
from genloop.data.image_reader import UnreadableImage, decode_image
from genloop.models.qwen.chat import Chat
from genloop.models.qwen.generate import expand_images
from genloop.models.qwen.images import PatchedImage, Pictures
from genloop.records import ChatTurn
from genloop.training.objectives.conversations.encoding import encode_pieces, next_tokens, supervised_places
from genloop.training.objectives.conversations.settings import ChatSettings

_HALF = "\ufffd"  # how the rest of a character is decoded whose first bytes are missing


@dataclass(frozen=True, eq=False)
class Document:
    """One chat: ids (n,), positions (n,) or (4, n), places (m,) whose next token is one of `targets` (m,)."""

    name: str
    ids: np.ndarray
    positions: np.ndarray
    places: np.ndarray
    targets: np.ndarray
    images: list[PatchedImage]
    image_tokens: int
    lost_tokens: int = 0  # of the user's text, cut
    left_out: int = 0  # images that the model does not take
    source: int = 0  # first tokens, which an encoder reads

    def __len__(self) -> int:
        return len(self.ids)


Chosen = tuple[Chats, Sequence[int]]  # a source and the numbers of the chats that are taken from it


class Documents:
    """`documents[i]`: the i-th chosen chat of several sources in a row."""

    def __init__(
        self,
        sources: Sequence[Chosen],
        chat: Chat,
        pictures: Pictures | None,
        settings: ChatSettings,
    ) -> None:
        self.chat, self.pictures, self.settings = chat, pictures, settings
        self._sources = [source for source, _ in sources]
        self._places = [(number, row) for number, (_, rows) in enumerate(sources) for row in rows]

    def __len__(self) -> int:
        return len(self._places)

    def row(self, number: int) -> ChatRow:
        """The chat as it was read."""
        source, row = self._places[number]
        return self._sources[source].row(row)

    def __getitem__(self, number: int) -> Document:
        """A document of at most `max_length` tokens where too_long=cut; else of any length.

        ValueError in one line with file and row: a broken image, special tokens in a text.
        """
        source, row = self._places[number]
        chats = self._sources[source]
        said = chats.row(row)
        try:
            document = self._document(said, self._images(chats, row, said))
        except UnreadableImage as error:
            raise ValueError(f"{said.name}: image: {error}") from None
        except ValueError as error:
            raise error if str(error).startswith(said.name) else ValueError(f"{said.name}: {error}") from None
        return document

    def _images(self, chats: Chats, row: int, said: ChatRow) -> list[PatchedImage]:
        if self.pictures is None:
            return []
        return [self.pictures.take(decode_image(chats.image(row, name))) for name in said.images]

    def _document(self, said: ChatRow, images: list[PatchedImage]) -> Document:
        messages, lost = list(said.messages), 0
        document = self._encode(said, messages, images)
        while self.settings.too_long == "cut" and len(document) > self.settings.max_length:
            number = max(
                (i for i, message in enumerate(messages) if message.role == "user"), key=lambda i: len(messages[i].text)
            )
            shorter, cut = self._shortened(messages[number], len(document) - self.settings.max_length)
            if cut <= 0:
                break  # nothing is left of the user's text
            messages[number], lost = shorter, lost + cut
            document = self._encode(said, messages, images)
        return replace(document, lost_tokens=lost)

    def _shortened(self, message: ChatTurn, excess: int) -> tuple[ChatTurn, int]:
        """A text of the user without its first `excess` tokens, at least its last one left -> and how many went.

        A character that was cut in two goes whole, unless it is all that is left: the rest of it takes more tokens.
        """
        ids = self.chat.tokenizer.encode(message.text)
        left = self.chat.tokenizer.decode(ids[min(excess, len(ids) - 1) :])
        text = left.lstrip(_HALF) or left
        return replace(message, text=text), len(ids) - len(self.chat.tokenizer.encode(text))

    def _encode(self, said: ChatRow, messages: Sequence[ChatTurn], images: list[PatchedImage]) -> Document:
        ids, answers = encode_pieces(self.chat.tokenizer.encode, self.chat.pieces(messages))
        source = answers[0].start - 1 if self.chat.folder.has_encoder else 0  # in front of the decoder's start
        ids = ids[: answers[-1].stop + 1]  # the token that closes the last answer ends the document
        if self.settings.supervise == "last":
            answers = answers[-1:]
        is_target = np.zeros(len(ids), dtype=bool)
        is_target[[place + 1 for place in supervised_places(answers, len(ids))]] = True
        image_token, grids = self.chat.folder.image_token, [image.grid for image in images]
        whole = np.array(ids, dtype=np.int64)
        if self.pictures is not None:
            images = self.pictures.asked(images, messages)
            whole = expand_images(ids, image_token, self.pictures, grids)
            repeats = np.ones(len(ids), dtype=np.int64)
            repeats[np.array(ids) == image_token] = [self.pictures.num_tokens(grid) for grid in grids]
            is_target = np.repeat(is_target, repeats)
            source = int(repeats[:source].sum())
        inputs, places, targets = next_tokens(whole, np.flatnonzero(is_target) - 1)
        kinds = (inputs == image_token).astype(np.int64)
        positions = np.arange(len(inputs)) if self.pictures is None else self.pictures.positions(kinds, grids)
        left_out = len(said.images) if self.pictures is None else 0
        return Document(
            said.name, inputs, positions, places, targets, images, int(kinds.sum()), left_out=left_out, source=source
        )
