"""One question about one image and its answer, as InstructBLIP was trained on them (Dai et al. 2023). No torch.

There is no chat template: features of the image, the question, the answer. A decoder-only model (Vicuna) reads

    <image> ... <image> <s> question answer </s>

and an encoder with a decoder (Flan-T5) reads the question on one side and writes the answer on the other:

    <image> ... <image> question </s> | <pad> answer </s>
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from genloop.models.common.pretrained import errors_in_one_line
from genloop.models.qwen.chat import Chat, Piece
from genloop.models.qwen.config import ChatFolder
from genloop.records import ChatTurn
from genloop.registry import require

IMAGE = "<image>"


class InstructTokenizer:
    """Text of a piece <-> ids; a special token is a piece of its own."""

    def __init__(self, folder: Path, image_token: int) -> None:
        self.folder, self._image_token = folder, image_token
        with errors_in_one_line(folder / "tokenizer.json"):
            self._tokenizer: Any = require("transformers").AutoTokenizer.from_pretrained(
                str(folder), local_files_only=True
            )
        self.num_tokens: int = len(self._tokenizer)
        self.specials: tuple[str, ...] = tuple(dict.fromkeys([IMAGE, *self._tokenizer.all_special_tokens]))
        self.end = str(self._tokenizer.eos_token)
        whole, bare = (self._tokenizer("a", add_special_tokens=add)["input_ids"] for add in (True, False))
        start = next(i for i in range(len(whole)) if whole[i : i + len(bare)] == bare)
        said = self._tokenizer.convert_ids_to_tokens
        self.before, self.behind = said(whole[:start]), said(whole[start + len(bare) :])  # a question

    def encode(self, text: str) -> list[int]:
        """Nothing is put in front or behind."""
        if text == IMAGE:
            return [self._image_token]
        if text in self.specials:
            return [int(self._tokenizer.convert_tokens_to_ids(text))]
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))

    def decode_all(self, ids: Sequence[int]) -> str:
        """Special tokens too."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False))

    def text_of(self, token: int) -> str:
        """The text of a special token."""
        return str(self._tokenizer.convert_ids_to_tokens(token))


class InstructChat(Chat):
    """Writes a question and its answer; the system message of a config is not said."""

    tokenizer: Any

    def __init__(self, folder: ChatFolder, system: str = "") -> None:
        self.folder, self.system = folder, system
        self.tokenizer = InstructTokenizer(folder.folder, folder.image_token)
        self.closing = self.tokenizer.encode(self.tokenizer.end)[0]

    def pieces(self, messages: Sequence[ChatTurn], *, prompt: bool = False) -> list[Piece]:
        """The pieces in order; ValueError for more than one question, for several images, special tokens."""
        for message in messages:
            if special := self._special_in(message.text):
                raise ValueError(f"a text of {message.role} holds the special token {special!r}; take it out")
        roles = [message.role for message in messages]
        if roles[:1] != ["user"] or roles[1:] not in ([], ["assistant"]):
            raise ValueError(
                f"InstructBLIP takes one question of the user and its answer, not {', '.join(roles)}; "
                "leave system messages out, and make each round a chat of its own"
            )
        asked = messages[0]
        if len(asked.images) > 1:
            raise ValueError(f"InstructBLIP takes one image, not {len(asked.images)}")
        found = [*(IMAGE for _ in asked.images), *self.tokenizer.before, asked.text, *self.tokenizer.behind]
        if self.folder.has_encoder:
            found.append(self.tokenizer.text_of(self.folder.config["text_config"].get("decoder_start_token_id", 0)))
        pieces = [Piece(text) for text in found]
        if prompt or len(messages) == 1:
            return pieces
        return [*pieces, Piece(messages[1].text, is_answer=True), Piece(self.tokenizer.end)]
