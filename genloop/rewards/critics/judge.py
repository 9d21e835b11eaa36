"""A critic as a judge, for guided generation (`search.strategy=refine`): it scores images and refines prompts.

P(yes) of an outcome mixes what another judge says of the prompt with what is measured on the pixels:
(1 - quality) * judge + quality * measured, where `measured` is 1 within all limits of exposure, contrast, colour, noise
and sharpness. Without another judge the measured part is all. With the default of 0.1 and a judge that gives partial
credit, no gain in exposure outweighs one of up to eight things that a prompt asks for, so alignment cannot drift.

    judge.kind=critic judge.options.critic.kind=rules judge.options.judge.kind=geneval ...

A judge that gives reasons adds them to the critique as an issue of content: the image is then drawn again, also where
the pixels are fine. Images below 8 pixels a side are not measured.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from genloop.bounds import Share
from genloop.config import Settings
from genloop.data.images import to_uint8
from genloop.data.irg.features import measure
from genloop.data.irg.quality import intent_of, quality
from genloop.factories import Resolve
from genloop.protocols import Judge
from genloop.records import Critique, Prompt
from genloop.rewards.build import build_judge, check_judge, judge_classes
from genloop.rewards.critics.settings import CriticSettings, ImageCritic, Sight, build_critic
from genloop.rewards.settings import JudgeMaker, JudgeSettings

if TYPE_CHECKING:
    from torch import Tensor

CONTENT = "content"  # the issue of what a judge finds wrong


class CriticJudgeOptions(Settings):
    """Keys of `judge.kind=critic`."""

    critic: CriticSettings = Field(CriticSettings(kind="rules"), description="rules, qwen or majority")
    judge: JudgeSettings | None = Field(None, description="who says whether an image shows its prompt")
    quality: Share = Field(0.1, description="share of the measured quality in a score, beside another judge")

    @property
    def members(self) -> tuple[JudgeSettings, ...]:
        """The judge that it asks in turn."""
        return () if self.judge is None else (self.judge,)


class CriticJudgeMaker(JudgeMaker):
    """The maker behind `critic`."""

    Options = CriticJudgeOptions

    @classmethod
    def check(cls, options: CriticJudgeOptions, resolve: Resolve) -> None:
        options.critic.check(resolve)
        if options.judge is not None:
            check_judge(options.judge, resolve, ("outcome",))

    @classmethod
    def inputs(cls, options: CriticJudgeOptions, resolve: Resolve) -> dict[str, Path]:
        found = options.critic.inputs(resolve, "critic")
        return found | (options.judge.inputs(resolve, "judge") if options.judge else {})

    @classmethod
    def questions(cls, options: CriticJudgeOptions, resolve: Resolve) -> tuple[str, ...]:
        asked = options.judge.maker.questions(options.judge.options, resolve) if options.judge else ("outcome",)
        return (*(question for question in asked if question not in ("compare", "refine")), "refine")

    @classmethod
    def classes(cls, options: CriticJudgeOptions) -> Sequence[str] | None:
        return None if options.judge is None else judge_classes(options.judge)

    @classmethod
    def load(cls, options: CriticJudgeOptions, resolve: Resolve, device: str) -> "CriticJudge":
        judge = None if options.judge is None else build_judge(options.judge, resolve, device)
        return CriticJudge(build_critic(options.critic, resolve, device), judge, options.quality)


class CriticJudge:
    """Implements the Judge and Refiner protocols, and Critic where its judge does."""

    def __init__(self, critic: ImageCritic, judge: Judge | None, share: float) -> None:
        self.critic, self.judge, self.share = critic, judge, share

    def p_yes(self, question: str, prompts: Sequence[Prompt], images: "Tensor") -> "Tensor":
        """One prompt per image (B, 3, H, W) in [0, 1] -> (B,); measured on the 8-bit pixels that would be written."""
        import torch

        if question != "outcome":
            return self._other.p_yes(question, prompts, images)
        pairs = zip(prompts, to_uint8(images), strict=True)
        measured = torch.tensor([quality(measure(image), intent_of(prompt.text)) for prompt, image in pairs])
        if self.judge is None:
            return measured.to(images.device)
        shown = self.judge.p_yes(question, prompts, images).float()
        return (1 - self.share) * shown + self.share * measured.to(shown.device)

    def critiques(self, prompts: Sequence[Prompt], images: "Tensor") -> list[Critique]:
        """One prompt per image (B, 3, H, W) in [0, 1] -> what the critic says, and what the judge finds wrong."""
        pixels = to_uint8(images)
        said = self.critic.criticise([_sight(prompt, image) for prompt, image in zip(prompts, pixels, strict=True)])
        reasons: Any = getattr(self.judge, "reasons", None)
        found = reasons(prompts, images) if reasons else [""] * len(said)
        return [_with_content(critique, reason) for critique, reason in zip(said, found, strict=True)]

    def flops(self, questions: Sequence[str], prompt: Prompt) -> float:
        """Those of the judge; measuring is not counted."""
        asked = [question for question in questions if question != "refine"]
        return self.judge.flops(asked, prompt) if self.judge is not None and asked else 0.0

    def __getattr__(self, name: str) -> Any:
        """Reasons, where the judge gives any."""
        if name == "reasons" and self.judge is not None:
            return self.judge.reasons  # type: ignore[attr-defined]
        raise AttributeError(f"CriticJudge has no {name}")

    @property
    def _other(self) -> Judge:
        if self.judge is None:
            raise ValueError("judge 'critic' answers outcome only; give it a judge: judge.options.judge")
        return self.judge


def _sight(prompt: Prompt, image: np.ndarray) -> Sight:
    """What was wanted, not what it was drawn for: a refined prompt is made of the instruction each time."""
    return Sight(prompt.text, measure(image), intent_of(prompt.text), image)


def _with_content(critique: Critique, reason: str | None) -> Critique:
    if reason is None:
        return replace(critique, problems=[*critique.problems, "the judge did not say whether the content is right"])
    if not reason or critique.failed:
        return critique
    issue = {"issue": CONTENT, "severity": 1.0, "evidence": [{"feature": "judge", "value": reason}]}
    words = f"{critique.reasoning} The judge says: {reason}."
    return replace(critique, diagnosis=[*critique.diagnosis, issue], reasoning=words)
