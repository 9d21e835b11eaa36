"""A chat model as a judge of answers: Qwen2-VL, Qwen2.5-VL, LLaVA-OneVision or InstructBLIP, from a folder.

judges.qwen.kind=chat judges.qwen.options.checkpoint=FOLDER judges.qwen.options.dtype=bfloat16
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field

from genloop.bounds import Count
from genloop.config import LAUNCH, DType, Settings
from genloop.factories import Resolve
from genloop.records import Likelihood, Writing
from genloop.rewards.responses.settings import ResponseMaker

if TYPE_CHECKING:
    from genloop.models.qwen.generate import Talker


class ChatOptions(Settings):
    """Keys of the kind `chat`."""

    checkpoint: Annotated[str, LAUNCH] = Field(description="name or folder, fingerprinted by content")
    dtype: DType = Field("float32", description="of the weights; probabilities are computed in float32")
    system: str = Field("", max_length=4096, description="said first; empty: what the chat template says by itself")
    chats_per_batch: Count = Field(
        1, description="verdicts written side by side; 1: none depends on those beside it, to the last bit"
    )


class ChatMaker(ResponseMaker):
    """The maker behind `chat`."""

    Options = ChatOptions

    @classmethod
    def check(cls, options: ChatOptions, resolve: Resolve) -> None:
        """That the folder holds a chat model that sees, with tokenizer and chat template."""
        from genloop.models.qwen.config import check_chat_folder

        folder = check_chat_folder(resolve(options.checkpoint))
        if not folder.sees:
            raise ValueError(f"{folder.folder}: a {folder.family} takes no images; use a model that does")

    @classmethod
    def inputs(cls, options: ChatOptions, resolve: Resolve) -> dict[str, Path]:
        """Weights, tokenizer, chat template and image processor."""
        return {"checkpoint": resolve(options.checkpoint)}

    @classmethod
    def facts(cls, options: ChatOptions, resolve: Resolve) -> dict[str, Any]:
        """Family, dtype, and the tokens that a square image of 512 pixels takes."""
        from genloop.models.qwen.config import check_chat_folder
        from genloop.models.qwen.families import pictures_of

        folder = check_chat_folder(resolve(options.checkpoint))
        pictures = pictures_of(folder)
        assert pictures is not None  # as `check` found
        tokens = pictures.num_tokens(pictures.grid(512, 512))
        return {"family": folder.family, "dtype": options.dtype, "tokens of a 512 x 512 image": tokens}

    @classmethod
    def load(cls, options: ChatOptions, resolve: Resolve, device: str) -> "ChatJudge":
        import torch

        from genloop.models.qwen.generate import load_talker

        dtype = getattr(torch, options.dtype)
        talker = load_talker(resolve(options.checkpoint), system=options.system, dtype=dtype, device=device)
        return ChatJudge(talker, options.chats_per_batch)


class ChatJudge:
    """Implements `genloop.protocols.ResponseJudge`."""

    def __init__(self, talker: "Talker", chats_per_batch: int = 1) -> None:
        self.talker, self.chats_per_batch = talker, chats_per_batch

    @property
    def network(self) -> Any:
        return self.talker.model

    def likelihoods(
        self, queries: Sequence[str], responses: Sequence[Sequence[str]], images: Sequence[np.ndarray | None]
    ) -> list[list[Likelihood]]:
        """One chat at a time, its answers side by side."""
        from genloop.models.qwen.likelihood import log_likelihoods

        return [
            log_likelihoods(
                self.talker, self._messages(query), _shown(image), [self.talker.chat.plain(text) for text in answers]
            )
            for query, answers, image in zip(queries, responses, images, strict=True)
        ]

    def write(
        self, queries: Sequence[str], images: Sequence[np.ndarray | None], seeds: Sequence[int], writing: Writing
    ) -> list[str | None]:
        """`chats_per_batch` chats at a time."""
        from genloop.models.qwen.generate import answers
        from genloop.rewards.responses.drawing import chooser

        written: list[str | None] = []
        for start in range(0, len(queries), self.chats_per_batch):
            part = slice(start, start + self.chats_per_batch)
            written += answers(
                self.talker,
                [self._messages(query) for query in queries[part]],
                [_shown(image) for image in images[part]],
                max_new_tokens=writing.max_new_tokens,
                choose=chooser(seeds[part], writing),
            )
        return written

    def _messages(self, query: str) -> list[dict[str, Any]]:
        return [{"role": "user", "content": self.talker.chat.plain(query)}]


def _shown(image: np.ndarray | None) -> list[np.ndarray]:
    return [] if image is None else [image]
