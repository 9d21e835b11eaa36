"""The verdict as a judge: P(yes) is 1 where an image shows what its prompt asks for, else 0, or its partial credit.

    judge.kind=geneval judge.options.detector=shapes judge.options.colors=shapes judge.options.credit=partial

With the exact detector of the embedded world this is that world's oracle, `shapes_oracle`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from geneval.reward import Reward, judge_rewards
from geneval.settings import (
    ColorSettings,
    DetectorSettings,
    Evaluator,
    EvaluatorKeys,
    build_evaluator,
    check_evaluator,
    evaluator_inputs,
)
from geneval.verdict import VerdictOptions
from genloop.config import Settings
from genloop.data.images import to_uint8
from genloop.factories import Maker, Resolve
from genloop.records import Prompt

if TYPE_CHECKING:
    from torch import Tensor


Credit = Literal["strict", "partial"]
_SHAPES = EvaluatorKeys(detector=DetectorSettings(kind="shapes"), colors=ColorSettings(kind="shapes"))


class VerdictJudge:
    """Judges outcomes by a detector and GenEval's rules; implements the Judge and Critic protocols."""

    def __init__(self, evaluator: Evaluator, credit: Credit = "strict") -> None:
        self.evaluator, self.credit = evaluator, credit

    def p_yes(self, question: str, prompts: Sequence[Prompt], images: "Tensor") -> "Tensor":
        """One prompt per image (B, 3, H, W) in [0, 1] -> (B,): 0.0 or 1.0, or the share of atoms that it satisfies.

        The images are judged as the 8-bit pixels that would be written; the only question is "outcome".
        """
        if question != "outcome":
            raise ValueError(f"the verdict judge answers 'outcome' only, not {question!r}")
        rewards = self._rewards(prompts, images)
        return images.new_tensor([float(getattr(reward, self.credit)) for reward in rewards]).float()

    def reasons(self, prompts: Sequence[Prompt], images: "Tensor") -> list[str]:
        """One prompt per image (B, 3, H, W) in [0, 1] -> in plain words why it does not show it, "" where it does."""
        return [reward.words for reward in self._rewards(prompts, images)]

    def flops(self, questions: Sequence[str], prompt: Prompt) -> float:
        return 0.0

    def _rewards(self, prompts: Sequence[Prompt], images: "Tensor") -> list[Reward]:
        for prompt in prompts:
            if prompt.tag is None:
                raise ValueError(f"prompt {prompt.index} {prompt.text!r} has no GenEval metadata to judge by")
        return judge_rewards(list(to_uint8(images)), prompts, self.evaluator)


class GenevalJudgeOptions(EvaluatorKeys):
    """Keys of `judge.kind=geneval`."""

    detector: DetectorSettings = Field(description="who finds the objects, as in `evaluate`")
    colors: ColorSettings = Field(description="who names their colours, as in `evaluate`")
    options: VerdictOptions = Field(VerdictOptions(), description="GenEval's rules, as in `evaluate`")
    credit: Credit = Field("strict", description="strict: 1 or 0; partial: the share of what the prompt asks for")


class GenevalJudge:
    """Makes judges of any detector and colour classifier."""

    Options = GenevalJudgeOptions
    needs_metadata = True

    @classmethod
    def check(cls, options: GenevalJudgeOptions, resolve: Resolve) -> None:
        check_evaluator(options, resolve)

    @classmethod
    def inputs(cls, options: GenevalJudgeOptions, resolve: Resolve) -> dict[str, Path]:
        return evaluator_inputs(options, resolve)

    @classmethod
    def questions(cls, options: GenevalJudgeOptions, resolve: Resolve) -> tuple[str, ...]:
        """Only a finished image shows its prompt or does not; what it lacks can be said."""
        return ("outcome", "reason")

    @classmethod
    def classes(cls, options: GenevalJudgeOptions) -> Sequence[str]:
        return options.detector.maker.classes(options.detector.options)

    @classmethod
    def load(cls, options: GenevalJudgeOptions, resolve: Resolve, device: str) -> VerdictJudge:
        return VerdictJudge(build_evaluator(options, resolve, device), options.credit)


class ShapesOracle(VerdictJudge, Maker):
    """The oracle of the embedded world, and its maker: no options, nothing to load."""

    needs_metadata = True

    def __init__(self) -> None:
        super().__init__(build_evaluator(_SHAPES, Path))

    @classmethod
    def questions(cls, options: Settings, resolve: Resolve) -> tuple[str, ...]:
        """Only a finished image shows its prompt or does not; what it lacks can be said."""
        return ("outcome", "reason")

    @classmethod
    def classes(cls, options: Settings) -> Sequence[str]:
        return _SHAPES.detector.maker.classes(options)

    @classmethod
    def load(cls, options: Settings, resolve: Resolve, device: str) -> "ShapesOracle":
        return cls()
