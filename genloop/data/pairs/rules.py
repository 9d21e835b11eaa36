"""Which images of a prompt make a pair: by a judge's score, by the verdict, or where both agree."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
from pydantic import Field

from genloop.bounds import Repeats
from genloop.config import Settings
from genloop.data.pairs.pair import Kind, Pair
from genloop.records import Prompt

Signal = Literal["judge", "verdict", "both"]
Rule = Literal["best_worst", "margin"]


class ReopenSettings(Settings):
    """kind=localised: where images are reopened, and how they go on."""

    first: Repeats = Field(4, description="the first step that an image may be reopened at")
    last: Repeats = Field(11, description="the last one; each image is reopened at one of them, all alike likely")
    steps: Repeats = Field(8, description="steps that fill what was masked again")
    continuations: Repeats = Field(1, description="how often each image is reopened")

    def check(self, num_steps: int) -> None:
        """ValueError when no image of `num_steps` steps has these."""
        if not self.first <= self.last < num_steps:
            raise ValueError(
                f"reopen.last: must be from reopen.first, {self.first}, to {num_steps - 1}, found {self.last}"
            )


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """A finished image of a prompt. n = image tokens."""

    name: str  # which of the prompt's images
    codes: np.ndarray  # (n,)
    score: float  # of the judge, or 1 and 0 for a right and a wrong image
    is_right: bool | None = None  # its verdict; None: nobody looked
    steps: np.ndarray | None = None  # (n,) that fixed each token


@dataclass(frozen=True, slots=True)
class Criterion:
    """When one image is preferred to another."""

    signal: Signal
    min_margin: float  # scores of the two differ by more

    def holds(self, better: Scored, worse: Scored) -> bool:
        """Whether `better` is preferred to `worse`."""
        if self.signal != "judge" and not (better.is_right and not worse.is_right):
            return False
        return better.score - worse.score > self.min_margin and bool((better.codes != worse.codes).any())


def pick(
    images: Sequence[Scored], criterion: Criterion, rule: Rule, *, most: int, key: str
) -> list[tuple[Scored, Scored]]:
    """(better, worse) pairs of the images of one prompt, `most` at most.

    best_worst: the best with the worst, the second best with the second worst, and so on, where one is preferred; with
    verdicts the best of the right images with the worst of the wrong ones, and so on;
    margin: every two of which one is preferred, the largest margins first, equal ones in an order that `key` decides.
    """
    ranked = sorted(images, key=lambda image: (-image.score, rank_of(f"{key}/{image.name}")))
    if rule == "best_worst":
        by_verdict = criterion.signal != "judge"
        better = [image for image in ranked if image.is_right] if by_verdict else ranked[: len(ranked) // 2]
        worse = [image for image in ranked if not (by_verdict and image.is_right)]
        found = list(zip(better, reversed(worse), strict=False))
    else:
        found = sorted(
            combinations(ranked, 2),
            key=lambda pair: (pair[1].score - pair[0].score, rank_of(f"{key}/{pair[0].name}/{pair[1].name}")),
        )
    return [pair for pair in found if criterion.holds(*pair)][:most]


def make_pair(
    prompt: Prompt,
    better: Scored,
    worse: Scored,
    signal: str,
    *,
    kind: Kind = "plain",
    kept: np.ndarray | None = None,
    reopened_at: int | None = None,
) -> Pair:
    """A pair of a prompt's images; `kept` (n,) bool and `reopened_at` of one that was reopened."""
    known = better.is_right is not None and worse.is_right is not None
    return Pair(
        key=f"{prompt.index:06d}_{better.name}_{worse.name}",
        prompt=prompt.condition,
        chosen=better.codes,
        rejected=worse.codes,
        scores=(better.score, worse.score),
        tag=prompt.tag,
        kind=kind,
        signal=signal,
        metadata=prompt.metadata(),
        verdicts=(bool(better.is_right), bool(worse.is_right)) if known else None,
        kept=kept,
        chosen_steps=better.steps,
        rejected_steps=worse.steps,
        reopened_at=reopened_at,
        prompt_index=prompt.index,
        chosen_from=better.name,
        rejected_from=worse.name,
    )


def rank_of(text: str) -> bytes:
    """What equals are ordered by: a hash, so that an order depends on nothing else."""
    return hashlib.blake2b(text.encode(), digest_size=8).digest()
