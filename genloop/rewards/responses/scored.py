"""A judge of images as a judge of answers: each answer is scored by itself, as a prompt that the image may show.

With `question` a judge that takes any wording is asked that.

    judges.clip.kind=scored judges.clip.options.judge="{kind: clip_score, options: {checkpoint: FOLDER}}"
    judges.llava.kind=scored judges.llava.options.judge="{kind: llava, options: {checkpoint: FOLDER}}" \\
        judges.llava.options.question="Is {response} the right answer to: {query}? Answer yes or no."

CLIP's text tower reads 77 tokens: of a longer answer it sees the beginning.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from genloop.config import Settings
from genloop.factories import Resolve
from genloop.records import Prompt
from genloop.rewards.build import build_judge, check_asker, check_judge, judge_fingerprint, needs_metadata
from genloop.rewards.responses.settings import ResponseMaker
from genloop.rewards.settings import JudgeSettings

if TYPE_CHECKING:
    from torch import Tensor

_OUTCOME = "outcome"
_PLACE = re.compile(r"\{(query|response)\}")


class ScoredOptions(Settings):
    """Keys of the kind `scored`."""

    judge: JudgeSettings = Field(description="who scores: kind, options, cache")
    prompt: str = Field("{response}", description="what the image may show, made of {query} and {response}")
    question: str | None = Field(None, description="yes/no question with {query} and {response} in place of `prompt`")


class ScoredMaker(ResponseMaker):
    """The maker behind `scored`."""

    Options = ScoredOptions
    readings = ("score",)

    @classmethod
    def check(cls, options: ScoredOptions, resolve: Resolve) -> None:
        if needs_metadata(options.judge):
            raise ValueError(f"judge.kind: judge {options.judge.kind!r} needs GenEval metadata, which answers lack")
        for key, text in (("prompt", options.prompt), ("question", options.question)):
            if text is not None and "{response}" not in text:
                raise ValueError(f"{key}: needs {{response}} in it, found {text!r}")
        if options.question is None:
            check_judge(options.judge, resolve, [_OUTCOME])
        else:
            check_asker(options.judge, resolve)

    @classmethod
    def inputs(cls, options: ScoredOptions, resolve: Resolve) -> dict[str, Path]:
        return options.judge.inputs(resolve, "judge")

    @classmethod
    def facts(cls, options: ScoredOptions, resolve: Resolve) -> dict[str, Any]:
        return {"judge": options.judge.kind, "judge fingerprint": judge_fingerprint(options.judge, resolve, "any")[:12]}

    @classmethod
    def load(cls, options: ScoredOptions, resolve: Resolve, device: str) -> "ResponseScores":
        return ResponseScores(build_judge(options.judge, resolve, device), options)


class ResponseScores:
    """Implements `genloop.protocols.ResponseScorer`."""

    def __init__(self, judge: Any, options: ScoredOptions) -> None:
        self.judge, self.options = judge, options

    def scores(
        self, queries: Sequence[str], responses: Sequence[Sequence[str]], images: Sequence[np.ndarray]
    ) -> list[list[float]]:
        """P(yes) of each answer, an image at a time: images differ in size."""
        return [
            self._scores(query, answers, image)
            for query, answers, image in zip(queries, responses, images, strict=True)
        ]

    def drawn_scores(self, prompts: Sequence[str], drawn: Sequence[Sequence[np.ndarray]]) -> list[list[float]]:
        """P(yes) of each image for its prompt, one at a time: images differ in size."""
        return [
            [float(self.judge.p_yes(_OUTCOME, [Prompt(0, prompt)], _pixels(image))[0]) for image in images]
            for prompt, images in zip(prompts, drawn, strict=True)
        ]

    def _scores(self, query: str, answers: Sequence[str], image: np.ndarray) -> list[float]:
        shown = _pixels(image).expand(len(answers), -1, -1, -1)
        text = self.options.question or self.options.prompt
        filled = [_filled(text, {"query": query, "response": answer}) for answer in answers]
        if self.options.question is None:
            return self.judge.p_yes(_OUTCOME, [Prompt(0, words) for words in filled], shown).tolist()
        return self.judge.p_yes_to(filled, shown).tolist()


def _pixels(image: np.ndarray) -> "Tensor":
    """(H, W, 3) uint8 -> (1, 3, H, W) in [0, 1]"""
    import torch

    return torch.from_numpy(image.copy()).permute(2, 0, 1)[None] / 255


def _filled(text: str, values: dict[str, str]) -> str:
    """In one pass: a query that holds "{response}" stays as it is."""
    return _PLACE.sub(lambda found: values[found[1]], text)
