"""Searches in milliseconds: a sampler over random weights, a judge that has an opinion on everything."""

import hashlib
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from genloop.config import parse_options
from genloop.protocols import Judge
from genloop.records import Choice, Critique, Prompt
from genloop.registry import lookup
from genloop.sampling.maskgit.sampler import MaskGitSampler
from genloop.sampling.maskgit.settings import SamplingConfig
from genloop.sampling.maskgit.state import MaskGitState
from genloop.search import STRATEGIES
from tests.worlds.tiny_showo import PROMPTS, pixels_of, tiny_showo

PAIRS = [(PROMPTS[index], sample) for index in (0, 2, 4, 5) for sample in range(2)]
STEPS = 6
RUNGS = [{"step": 2, "share": 0.5}, {"step": 4, "share": 0.4}]
SEARCHES: dict[str, tuple[str, int, dict[str, Any]]] = {
    "none": ("none", 1, {}),
    "best_of_n": ("best_of_n", 3, {}),
    "prm path": ("prm", 3, {"stride": 2, "aggregate": "min"}),
    "prm step": ("prm", 3, {"keep": "step", "start": 2, "stride": 2, "question": "potential"}),
    "parm rank": ("parm", 5, {"at": [1, 3], "keep": [3, 2]}),
    "parm threshold": ("parm", 4, {"mode": "threshold", "clear": 0.6, "threshold": 0.6}),
    "parm bisect": ("parm", 4, {"mode": "threshold", "clarity": "bisect", "threshold": 0.6}),
    "parm released": ("parm", 3, {"mode": "released"}),
    "parm++ confidence": ("parm_plus_plus", 4, {"accept": 0.9, "rounds": 3}),
    "parm++ occlusion": ("parm_plus_plus", 1, {"start": "none", "region": "occlusion", "accept": 1.0, "rounds": 2}),
    "parm++ random": ("parm_plus_plus", 2, {"start": "best_of_n", "region": "random", "accept": 1.0, "rounds": 2}),
    "parm++ layout": ("parm_plus_plus", 2, {"start": "best_of_n", "correction": "layout", "accept": 1.0, "rounds": 2}),
    "refine": ("refine", 1, {"rounds": 3, "strength": 0.7}),
    "refine best": ("refine", 2, {"rounds": 2, "strength": 0.5, "region": "confidence", "guidance_rise": 0.5}),
    "halving": ("successive_halving", 5, {"rungs": RUNGS}),
    "knockout": ("knockout", 5, {}),
    "adaptive": ("adaptive", 6, {"group": 2, "error": 0.2, "slope": 1.5}),
    "adaptive alone": ("adaptive", 4, {"group": 1, "error": 0.2}),
}


class Opinions:
    """P(yes) is a hash of question, prompt and pixels; implements Judge, Comparer, Critic and Refiner."""

    def __init__(self, unknown: float = 0.0) -> None:
        self.unknown = unknown  # the share of images about which it has no answer
        self.shown: list[tuple[str, int]] = []  # question and number of images of every call

    def p_yes(self, question: str, prompts: Sequence[Prompt], images: Tensor) -> Tensor:
        self.shown.append((question, len(prompts)))
        return torch.tensor([self._opinion(question, p, i) for p, i in zip(prompts, images, strict=True)])

    def flops(self, questions: Sequence[str], prompt: Prompt) -> float:
        return 100.0 + 10.0 * len(questions) + prompt.index

    def p_first(self, prompts: Sequence[Prompt], first: Tensor, second: Tensor) -> Tensor:
        self.shown.append(("compare", len(prompts)))
        pairs = zip(prompts, first, second, strict=True)
        strengths = [(self._opinion("compare", p, a), self._opinion("compare", p, b)) for p, a, b in pairs]
        return torch.tensor([a / (a + b) if a + b else 0.5 for a, b in strengths])

    def reasons(self, prompts: Sequence[Prompt], images: Tensor) -> list[str]:
        self.shown.append(("reasons", len(prompts)))
        return [f"reason {self._hash('why', p, i) % 100}" for p, i in zip(prompts, images, strict=True)]

    def critiques(self, prompts: Sequence[Prompt], images: Tensor) -> list[Critique]:
        self.shown.append(("refine", len(prompts)))
        return [self._critique(self._hash("refine", p, i) % 10, p) for p, i in zip(prompts, images, strict=True)]

    def _critique(self, number: int, prompt: Prompt) -> Critique:
        features = {"brightness": number / 10}
        if number == 0:
            return Critique(features, problems=("no JSON", "no JSON"), failed=True)
        issue = {"issue": "underexposed", "severity": number / 10}
        return Critique(features, "dark", [issue] if number > 1 else [], prompt=f"{prompt.condition}, {number}")

    def _opinion(self, question: str, prompt: Prompt, image: Tensor) -> float:
        if self._hash("known", prompt, image) % 1000 < 1000 * self.unknown:
            return math.nan
        return self._hash(question, prompt, image) % 1001 / 1000

    def _hash(self, question: str, prompt: Prompt, image: Tensor) -> int:
        content = f"{question}/{prompt.text}/".encode() + image.contiguous().numpy().tobytes()
        return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")


class OnlyOutcomes:
    """A judge that neither compares nor gives reasons."""

    def __init__(self) -> None:
        self.opinions = Opinions()

    def p_yes(self, question: str, prompts: Sequence[Prompt], images: Tensor) -> Tensor:
        return self.opinions.p_yes(question, prompts, images)

    def flops(self, questions: Sequence[str], prompt: Prompt) -> float:
        return 0.0


class CountingSampler(MaskGitSampler):
    """Remembers how many rows each step walked."""

    walked: list[int]

    def step(self, state: MaskGitState) -> MaskGitState:
        self.walked = [*getattr(self, "walked", []), len(state)]
        return super().step(state)


def sampler(slots: int = 64, **settings: Any) -> CountingSampler:
    """Sixteen tokens in six steps, unless `settings` say otherwise."""
    model = tiny_showo()
    chosen = SamplingConfig(**{"steps": STEPS, "preview": "argmax", **settings})
    return CountingSampler(model, pixels_of(model), chosen, slots=slots)


def build(name: str, n: int, judge: Judge | None, slots: int = 64, **options: Any) -> Any:
    """A strategy by its name in the table."""
    strategy = lookup(STRATEGIES, name, "strategy")
    return strategy(sampler(slots), judge, n, parse_options(strategy.Options, options))


def content(choice: Choice) -> dict[str, Any]:
    """Everything that a choice says, comparable; NaN as None."""
    candidates = [
        {
            "index": one.index,
            "content": one.content.tolist(),
            "history": {name: values.tolist() for name, values in one.history.items()},
            "num_steps": one.num_steps,
            "p_yes": {question: known(p) for question, p in one.p_yes.items()},
            "trace": [(seen.step, seen.question, known(seen.p_yes), seen.guess.tolist()) for seen in one.trace],
            "rest": (one.cut_at, one.parent, one.reason, one.critique, one.redrawn),
        }
        for one in choice.candidates
    ]
    cost = choice.cost
    return {
        "chosen": choice.chosen,
        "cost": (cost.generator_steps, cost.judge_calls, cost.flops),
        "candidates": candidates,
    }


def known(p_yes: float) -> float | None:
    return None if math.isnan(p_yes) else p_yes
