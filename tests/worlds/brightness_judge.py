"""A judge of an obvious taste: the brighter an image, the better."""

from collections.abc import Sequence
from typing import Any

from genloop.factories import Resolve
from genloop.protocols import Judge
from genloop.records import Prompt
from genloop.rewards.settings import JudgeMaker


class Brightness(JudgeMaker):
    """Needs nothing."""

    @classmethod
    def load(cls, options: Any, resolve: Resolve, device: str) -> Judge:
        """The judge."""
        return BrightnessJudge()


class BrightnessJudge:
    """Implements `genloop.protocols.Judge`."""

    def p_yes(self, question: str, prompts: Sequence[Prompt], images: Any) -> Any:
        """(B, 3, H, W) -> (B,), their means"""
        return images.flatten(1).mean(1)

    def flops(self, questions: Sequence[str], prompt: Prompt) -> float:
        """None that anybody counts."""
        return 0.0
