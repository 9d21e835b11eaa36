"""A chat model as a critic: it reads instruction and measurements, and the image if it sees, and answers in JSON.

An answer has to parse strictly, into the schema of the refinement corpus. One that does not is refused with the reason,
as the next turn of the chat, up to `attempts` times; the reasons stay in the critique. When the last one is refused too
nothing is to be changed.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from genloop.bounds import Count, Repeats
from genloop.config import INPUT, DType, Settings
from genloop.data.irg.text import SYSTEM, Reply, read_answer, user_turn
from genloop.factories import Resolve
from genloop.records import Critique
from genloop.rewards.critics.rules import features_of
from genloop.rewards.critics.settings import CriticMaker, Sight

if TYPE_CHECKING:
    from genloop.models.qwen.generate import Talker

REFUSED = "Your answer was refused: {reason}. Answer again with a paragraph and one JSON object."


class QwenOptions(Settings):
    """Keys of `critic.kind=qwen`."""

    checkpoint: Annotated[Path, INPUT] = Field(description="folder of transformers, as `train_vlm` writes one")
    dtype: DType = Field("float32", description="of the weights")
    max_new_tokens: Count = Field(768, description="of one answer")
    chats_per_batch: Count = Field(
        1, description="answered side by side; 1: no answer depends on the chats beside it, to the last bit"
    )
    attempts: Repeats = Field(2, description="answers that are read before nothing is changed")


class QwenMaker(CriticMaker):
    """The maker behind `qwen`."""

    Options = QwenOptions

    @classmethod
    def check(cls, options: QwenOptions, resolve: Resolve) -> None:
        """That the folder holds a chat model with tokenizer and chat template."""
        from genloop.models.qwen.config import check_chat_folder

        check_chat_folder(options.checkpoint)

    @classmethod
    def load(cls, options: QwenOptions, resolve: Resolve, device: str) -> "QwenCritic":
        import torch

        from genloop.models.qwen.generate import load_talker

        talker = load_talker(options.checkpoint, system=SYSTEM, dtype=getattr(torch, options.dtype), device=device)
        return QwenCritic(talker, options)


class QwenCritic:
    """Implements `genloop.rewards.critics.settings.ImageCritic`."""

    def __init__(self, talker: "Talker", options: QwenOptions) -> None:
        self.talker, self.options = talker, options

    def criticise(self, sights: Sequence[Sight]) -> list[Critique]:
        chats = [_Chat(sight) for sight in sights]
        for _ in range(self.options.attempts):
            unread = [chat for chat in chats if chat.said is None]
            for start in range(0, len(unread), self.options.chats_per_batch):
                self._ask(unread[start : start + self.options.chats_per_batch])
        return [chat.critique() for chat in chats]

    def _ask(self, chats: Sequence["_Chat"]) -> None:
        from genloop.models.qwen.generate import answers

        messages, images = [chat.messages for chat in chats], [chat.images for chat in chats]
        for chat, said in zip(
            chats, answers(self.talker, messages, images, max_new_tokens=self.options.max_new_tokens)
        ):
            chat.hear(said)


class _Chat:
    """One sight, what was said about it, and why that was refused."""

    def __init__(self, sight: Sight) -> None:
        asked = sight.asked or user_turn(sight.instruction, sight.features, scene=sight.shown, tried=sight.tried)
        self.messages: list[dict[str, Any]] = [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": asked},
        ]
        self.images = [] if sight.image is None else [sight.image]
        self.sight = sight
        self.said: Reply | None = None
        self.problems: list[str] = []

    def hear(self, said: str) -> None:
        """Read an answer, or ask for another one with the reason."""
        try:
            self.said = read_answer(said)
        except ValueError as error:
            self.problems.append(str(error))
            refusal = {"role": "user", "content": REFUSED.format(reason=error)}
            self.messages = [*self.messages, {"role": "assistant", "content": said}, refusal]

    def critique(self) -> Critique:
        features, said = features_of(self.sight.features), self.said
        if said is None:
            return Critique(features, problems=self.problems, failed=True, prompt=self.sight.instruction)
        return Critique(
            features,
            said.reasoning,
            [diagnosis.model_dump(mode="json") for diagnosis in said.diagnosis],
            [action.model_dump(mode="json") for action in said.actions],
            said.prompt,
            self.problems,
        )
