"""The contracts between the parts: a strategy knows a Sampler and a Judge, an evaluation a Detector, nobody a model.

B = rows (candidates), n = image tokens, H, W = pixels.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np

from genloop.records import Choice, Detection, Prompt, Seed

if TYPE_CHECKING:
    from torch import Tensor


class State(Protocol):
    """Paths in the middle of decoding, one row a candidate."""

    tokens: "Tensor"  # (B, n) int64 codes; the sampler's `mask_code` where still masked
    revealed_at: "Tensor"  # (B, n) int64: step at which a token was fixed; -1 while masked
    step: int  # steps done

    def __len__(self) -> int: ...

    def select(self, rows: Sequence[int]) -> "State":
        """The given rows, in that order."""


S = TypeVar("S", bound=State)


class Sampler(Protocol[S]):
    """Turns prompts into image tokens step by step; S is its kind of state."""

    num_steps: int
    grid: tuple[int, int]  # rows, columns of image tokens

    def start(self, prompts: Sequence[Prompt], seeds: Sequence[Seed]) -> S:
        """One row for each (prompt, seed) pair, all image tokens masked."""

    def step(self, state: S) -> S:
        """One decoding step for every row."""

    def preview(self, state: S) -> "Tensor":
        """The current full guess of every row as pixels: (B, 3, H, W) in [0, 1]."""

    def decode(self, tokens: "Tensor") -> "Tensor":
        """(B, n) codes -> (B, 3, H, W) pixels in [0, 1]."""


class Judge(Protocol):
    """Answers a yes/no question about images; deterministic, and no answer depends on the images beside it."""

    def p_yes(self, question: str, prompts: Sequence[Prompt], images: "Tensor") -> "Tensor":
        """One prompt per image (B, 3, H, W) in [0, 1] -> (B,) in [0, 1]; question: outcome, clarity or potential.

        NaN marks an image that could not be judged, e.g. because a server did not answer.
        """

    def flops(self, questions: Sequence[str], prompt: Prompt) -> float:
        """Operations (2 a multiply-add) that these questions about one image take; 0 where nobody knows."""


class Comparer(Protocol):
    """A judge that can also say which of two images shows a prompt better."""

    def p_first(self, prompts: Sequence[Prompt], first: "Tensor", second: "Tensor") -> "Tensor":
        """Pairs of images, each (B, 3, H, W) in [0, 1] -> (B,): P(the first is better); 1 - p when swapped."""


class Critic(Protocol):
    """A judge that can also say in words what is wrong."""

    def reasons(self, prompts: Sequence[Prompt], images: "Tensor") -> list[str]:
        """One prompt per image (B, 3, H, W) in [0, 1] -> why it does not show its prompt; "" where it does."""


class Strategy(Protocol):
    """Spends a budget of candidates on each image."""

    def search(self, pairs: Sequence[tuple[Prompt, int]], run_seed: int) -> list[Choice]:
        """One choice for each (prompt, sample) pair."""


class Detector(Protocol):
    """Finds objects."""

    classes: Sequence[str]

    def detect(self, images: Sequence[np.ndarray]) -> list[list[Detection]]:
        """Images (H, W, 3) uint8 RGB, sizes may differ -> the detections of each, unsorted, unfiltered."""


class ColorClassifier(Protocol):
    """Names the colour of detected objects."""

    def colors(self, image: np.ndarray, detections: Sequence[Detection]) -> list[str]:
        """Image (H, W, 3) uint8 RGB; one of GenEval's ten colours for each detection (all of one class)."""


class ImageTokenizer(Protocol):
    """Images <-> discrete codes in [0, num_codes), row-major over the grid."""

    num_codes: int
    grid: tuple[int, int]  # rows, columns of the training size

    def encode(self, images: "Tensor") -> "Tensor":
        """(B, 3, H, W) in [0, 1] -> (B, h*w) int64."""

    def decode(self, codes: "Tensor", shape: tuple[int, int] | None = None) -> "Tensor":
        """(B, h*w) int64 of a grid of `shape` (default `grid`) -> (B, 3, H, W) in [0, 1]."""
