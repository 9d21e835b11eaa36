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
from genloop.data.irg.text import SYSTEM, read_answer, user_turn
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
        """The model on `device`."""
        import torch

        from genloop.models.qwen.generate import load_talker

        talker = load_talker(options.checkpoint, system=SYSTEM, dtype=getattr(torch, options.dtype), device=device)
        return QwenCritic(talker, options)


class QwenCritic:
    """Implements `genloop.rewards.critics.settings.ImageCritic`; one chat at a time, so that none sees another."""

    def __init__(self, talker: "Talker", options: QwenOptions) -> None:
        self.talker, self.options = talker, options

    def criticise(self, sights: Sequence[Sight]) -> list[Critique]:
        """What the model says of each."""
        return [self._criticise(sight) for sight in sights]

    def _criticise(self, sight: Sight) -> Critique:
        from genloop.models.qwen.generate import answer

        asked = sight.asked or user_turn(sight.instruction, sight.features, scene=sight.shown, tried=sight.tried)
        messages: list[dict[str, Any]] = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": asked}]
        images = None if sight.image is None else [sight.image]
        features, problems = features_of(sight.features), []
        for _ in range(self.options.attempts):
            said = answer(self.talker, messages, images, max_new_tokens=self.options.max_new_tokens)
            try:
                found = read_answer(said)
            except ValueError as error:
                problems.append(str(error))
                refusal = {"role": "user", "content": REFUSED.format(reason=error)}
                messages = [*messages, {"role": "assistant", "content": said}, refusal]
                continue
            return Critique(
                features,
                found.reasoning,
                [diagnosis.model_dump(mode="json") for diagnosis in found.diagnosis],
                [action.model_dump(mode="json") for action in found.actions],
                found.prompt,
                problems,
            )
        return Critique(features, problems=problems, failed=True, prompt=sight.instruction)
