"""Messages -> the text of a chat, cut at the answers of the assistant, and its ids. No torch.

The folder's own template writes the text. Answers are found by writing the chat once more up to each of them, so any
template will do that only adds to what it wrote before. Pieces are tokenised one by one: an answer has the ids that a
model generates behind the prompt.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from genloop.models.llava.text import LlavaTokenizer
from genloop.models.qwen.config import SYSTEM, ChatFolder
from genloop.records import ChatTurn
from genloop.registry import require


class Piece(NamedTuple):
    """A part of the text of a chat."""

    text: str
    is_answer: bool = False


class Chat:
    """Writes chats for one model. `system` is said first where messages have no system message of their own.

    With an empty one the template has its own way.
    """

    def __init__(self, folder: ChatFolder, system: str = SYSTEM) -> None:
        self.folder, self.system = folder, system
        self.tokenizer = LlavaTokenizer(folder.folder)
        self.closing = self._closing()

    def pieces(self, messages: Sequence[ChatTurn], *, prompt: bool = False) -> list[Piece]:
        """The text in order; with `prompt` it ends where the assistant would begin to answer.

        ValueError for a template that does not add to what it wrote, and for texts with special tokens in them.
        """
        said = self._with_system(messages)
        whole, end, found = self._write(said, prompt=prompt), 0, []
        for number, message in enumerate(said):
            if message.role != "assistant":
                continue
            before = self._write(said[:number], prompt=True)
            answer = message.text.strip() if not whole[len(before) :].startswith(message.text) else message.text
            if not whole.startswith(before + answer):
                raise ValueError(f"{self.folder.folder}: the chat template changes turns that it wrote before")
            found += [Piece(whole[end : len(before)]), Piece(answer, is_answer=True)]
            end = len(before) + len(answer)
        return [*found, Piece(whole[end:])]

    def plain(self, text: str) -> str:
        """A text without special tokens: a blank behind their first letter makes them words."""
        for special in self.tokenizer.specials:
            text = text.replace(special, f"{special[:1]} {special[1:]}")
        return text

    def prompt_ids(self, messages: Sequence[ChatTurn]) -> list[int]:
        """The ids that an answer follows; images are one token each."""
        return [token for piece in self.pieces(messages, prompt=True) for token in self.tokenizer.encode(piece.text)]

    def _with_system(self, messages: Sequence[ChatTurn]) -> list[ChatTurn]:
        for message in messages:
            if special := self._special_in(message.text):
                raise ValueError(f"a text of {message.role} holds the special token {special!r}; take it out")
        own = messages and messages[0].role == "system"
        return list(messages) if own or not self.system else [ChatTurn("system", self.system), *messages]

    def _special_in(self, text: str) -> str | None:
        return next((token for token in self.tokenizer.specials if token in text), None)

    def _write(self, messages: Sequence[ChatTurn], *, prompt: bool) -> str:
        render = require("transformers.utils.chat_template_utils").render_jinja_template
        errors = require("jinja2").TemplateError
        chat = [{"role": message.role, "content": self._content(message)} for message in messages]
        try:
            texts = render(
                [chat], chat_template=self.folder.template, add_generation_prompt=prompt, **self.folder.specials
            )
        except errors as error:
            raise ValueError(f"{self.folder.folder}: chat_template: {' '.join(str(error).split())}") from None
        texts = texts[0] if isinstance(texts, tuple) else texts
        return str(texts[0])

    def _content(self, message: ChatTurn) -> Any:
        if not self.folder.sees:
            return message.text
        return [*({"type": "image"} for _ in message.images), {"type": "text", "text": message.text}]

    def _closing(self) -> int:
        """The id that closes an answer; ValueError when it is no token of its own."""
        last = self.pieces([ChatTurn("user", "a"), ChatTurn("assistant", "b")])[-1].text
        ids = self.tokenizer.encode(last)
        if not ids or self.tokenizer.decode_all(ids[:1]) not in self.tokenizer.specials:
            raise ValueError(
                f"{self.folder.folder}: the chat template ends an answer by {last!r}, which opens with no special token"
            )
        return ids[0]
