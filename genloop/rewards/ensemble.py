"""Several judges as one: the weighted mean of their z-normalised answers.

P(yes) of judges is not comparable: one is sure of everything, another never leaves .2 to .35. So each member's answers
are turned into logits, centred and scaled by its own mean and standard deviation of that question, averaged with the
weights, and turned back by a sigmoid. Means and deviations are numbers in the config, not those of the batch: an answer
must not depend on the images beside it. `scales_of` finds them in the answers that a run of the member alone recorded.

    judge.kind=ensemble judge.options.members="[{kind: llava, options: {checkpoint: A}, weight: 2,
      mean: {outcome: -1.3}, std: {outcome: 2.1}}, {kind: clip_score, options: {checkpoint: B}}]"

A member that cannot judge an image (NaN) leaves its weight to the others. A question goes to the members that
answer it.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from genloop.bounds import Factor, Offset
from genloop.config import Settings
from genloop.factories import Resolve
from genloop.protocols import Judge
from genloop.records import Prompt
from genloop.registry import did_you_mean
from genloop.rewards.build import build_judge, check_judge, judge_classes
from genloop.rewards.settings import JudgeMaker, JudgeSettings

if TYPE_CHECKING:
    from torch import Tensor

CLOSEST = 1e-7  # to 0 and to 1 that a logit is taken of


class Member(JudgeSettings):
    """One judge of several. `mean` and `std` are of its logits, by question; what is not named is 0 and 1."""

    weight: Factor = Field(1.0, description="against the other members' weights")
    mean: dict[str, Offset] = Field({}, description="of the logits of P(yes), by question")
    std: dict[str, Factor] = Field({}, description="of the logits of P(yes), by question")


class EnsembleOptions(Settings):
    """Who is asked."""

    members: tuple[Member, ...] = Field(min_length=1, description="judges with weight, mean and std")


class Ensemble(JudgeMaker):
    """Makes one judge of several."""

    Options = EnsembleOptions

    @classmethod
    def check(cls, options: EnsembleOptions, resolve: Resolve) -> None:
        """Every member, and that scales are of questions that it answers."""
        for place, member in enumerate(options.members):
            check_judge(member, resolve)
            answers = _questions(member, resolve)
            for question in (*member.mean, *member.std):
                if question not in answers:
                    raise ValueError(
                        f"judge.options.members.{place}: judge {member.kind!r} does not answer {question!r}"
                        f"{did_you_mean(question, answers)} ({', '.join(answers)})"
                    )

    @classmethod
    def inputs(cls, options: EnsembleOptions, resolve: Resolve) -> dict[str, Path]:
        return {
            key: path
            for place, member in enumerate(options.members)
            for key, path in member.inputs(resolve, f"members.{place}").items()
        }

    @classmethod
    def questions(cls, options: EnsembleOptions, resolve: Resolve) -> tuple[str, ...]:
        """Those that any member answers; pairs of images are not compared."""
        asked = dict.fromkeys(question for member in options.members for question in _questions(member, resolve))
        return tuple(question for question in asked if question != "compare")

    @classmethod
    def classes(cls, options: EnsembleOptions) -> Sequence[str] | None:
        """Those that every member knows."""
        known = [classes for member in options.members if (classes := judge_classes(member)) is not None]
        return [name for name in known[0] if all(name in classes for classes in known)] if known else None

    @classmethod
    def load(cls, options: EnsembleOptions, resolve: Resolve, device: str) -> "EnsembleJudge":
        return EnsembleJudge(
            [(member, build_judge(member, resolve, device), _questions(member, resolve)) for member in options.members]
        )


class EnsembleJudge:
    """Asks its members one after the other; implements the Judge and Critic protocols."""

    def __init__(self, members: Sequence[tuple[Member, Judge, Sequence[str]]]) -> None:
        self.members = members  # each with its questions

    def p_yes(self, question: str, prompts: Sequence[Prompt], images: "Tensor") -> "Tensor":
        """One prompt per image (B, 3, H, W) in [0, 1] -> (B,) float32; NaN where no member could judge."""
        import torch

        asked = [(member, judge) for member, judge, answers in self.members if question in answers]
        if not asked:
            raise ValueError(f"no member of the ensemble answers {question!r}")
        total = torch.zeros(len(prompts), dtype=torch.float64, device=images.device)
        weights = torch.zeros_like(total)
        for member, judge in asked:
            p = judge.p_yes(question, prompts, images).double().clamp(CLOSEST, 1 - CLOSEST)
            z = (torch.logit(p) - member.mean.get(question, 0.0)) / member.std.get(question, 1.0)
            total += member.weight * torch.where(z.isnan(), 0.0, z)
            weights += member.weight * (~z.isnan())
        return torch.sigmoid(total / weights).float()  # 0 / 0 is NaN

    def reasons(self, prompts: Sequence[Prompt], images: "Tensor") -> list[str | None]:
        """What the first member that gives reasons says."""
        critic: Any = next(judge for _, judge, answers in self.members if "reason" in answers)
        return critic.reasons(prompts, images)

    def flops(self, questions: Sequence[str], prompt: Prompt) -> float:
        """Of all members that are asked."""
        asked = [(judge, [q for q in questions if q in answers]) for _, judge, answers in self.members]
        return sum(judge.flops(own, prompt) for judge, own in asked if own)


def scales_of(images: Iterable[Mapping[str, Sequence[float]]]) -> dict[str, tuple[float, float]]:
    """{question: P(yes) of the candidates} of each image -> {question: (mean, std)} of the logits.

    `GeneratedRow.answers` gives them for a row of `generate`; NaN is no answer. The deviation is that between
    candidates of one image, for these are what a strategy chooses among. ValueError where a question was never
    answered differently for two of them.
    """
    answers: dict[str, list[list[float]]] = {}
    for image in images:
        for question, found in image.items():
            known = [min(max(p, CLOSEST), 1 - CLOSEST) for p in found if not math.isnan(p)]
            if known:
                answers.setdefault(question, []).append([math.log(p / (1 - p)) for p in known])
    return {question: _scale(question, groups) for question, groups in answers.items()}


def _scale(question: str, groups: Sequence[Sequence[float]]) -> tuple[float, float]:
    values = [value for group in groups for value in group]
    means = [math.fsum(group) / len(group) for group in groups]
    squares = math.fsum((value - mean) ** 2 for group, mean in zip(groups, means) for value in group)
    if not squares:
        raise ValueError(f"{question}: no two candidates of an image differ; use a run with search.n=2 or more")
    return math.fsum(values) / len(values), math.sqrt(squares / (len(values) - len(groups)))


def _questions(member: Member, resolve: Resolve) -> tuple[str, ...]:
    return member.maker.questions(member.options, resolve)
