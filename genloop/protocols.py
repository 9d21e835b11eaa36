"""The contracts between the parts: a strategy knows a Sampler and a Judge, an evaluation a Detector, nobody a model.

B = rows (candidates), n = cells of a content (of Show-o: image tokens), H, W = pixels.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from genloop.records import Choice, Critique, Detection, Likelihood, Prompt, Seed, Wanted, Writing

if TYPE_CHECKING:
    from torch import Tensor


class State(Protocol):
    """Paths in the middle of sampling, one row a candidate. Rows may be at different steps; none refers to another.

    The content is what a sampler works on: tokens, or latents. It has n cells, those of the sampler's `grid`.
    """

    @property
    def content(self) -> "Tensor":
        """(B, ...) as far as it is decided; what `Sampler.decode` takes once a row is done."""

    @property
    def guess(self) -> "Tensor":
        """(B, ...): the whole content as the last step would end it; `content` before the first."""

    @property
    def steps(self) -> tuple[int, ...]:
        """Done, of each row, since it was started or reopened."""

    @property
    def lengths(self) -> tuple[int, ...]:
        """Steps until each row is done."""

    def __len__(self) -> int: ...

    def select(self, rows: Sequence[int]) -> "State":
        """The given rows, in that order."""


S = TypeVar("S", bound=State)


class Sampler(Protocol[S]):
    """Turns prompts into images step by step; S is its kind of state."""

    num_steps: int
    grid: tuple[int, int]  # rows, columns of the cells of a content
    slots: int  # how many paths it walks side by side at most
    flops_per_step: float  # operations (2 a multiply-add) of one guided step of one path
    flops_per_decode: float  # of one image from content to pixels

    def start(self, prompts: Sequence[Prompt], seeds: Sequence[Seed]) -> S:
        """One row for each (prompt, seed) pair, nothing decided; what is read is a prompt's `condition`."""

    def join(self, states: Sequence[S]) -> S:
        """All rows of the states, in order."""

    def branch(self, state: S, seeds: Sequence[Seed]) -> S:
        """The same paths with other noise from here on; one seed a row."""

    def remask(self, state: S, drop: "Tensor", num_steps: int) -> S:
        """Reopen the cells where `drop` (B, n) is True: tokens are masked again, latents noised again.

        `num_steps` steps fill them, the others stay.
        """

    def correct(self, state: S, prompts: Sequence[Prompt], reasons: Sequence[str]) -> S:
        """Reopen every cell, to be drawn knowing the finished image that was there and what is wrong with it.

        Only generators that were tuned for it make sense of that.
        """

    def renoise(
        self,
        state: S,
        prompts: Sequence[Prompt],
        strength: float,
        guidance: float = 1.0,
        cells: "Tensor | None" = None,
    ) -> S:
        """Noise finished rows again, to be drawn for other prompts: tokens are masked, latents go back in time.

        `strength` in (0, 1] is the share of the noise and, rounded up, of the steps; at 1 nothing of the image is left.
        `guidance` multiplies the guidance scale from here on; a sampler without guidance ignores it. `cells` (B, n)
        bool says which ones are drawn again; by default tokens are chosen by chance, and latents are noised everywhere.
        """

    def step(self, state: S) -> S:
        """One step for every row."""

    def confidence(self, state: S) -> "Tensor":
        """How well each cell of the guess fits the text and the other cells: (B, n), the lowest fit worst.

        Counts as one and a half guided steps.
        """

    def preview(self, state: S) -> "Tensor":
        """The current guess of every row as pixels: (B, 3, H, W) in [0, 1]."""

    def decode(self, content: "Tensor") -> "Tensor":
        """(B, ...) finished contents or guesses -> (B, 3, H, W) pixels in [0, 1]."""

    def history(self, state: S, row: int) -> Mapping[str, np.ndarray]:
        """What a run records about how a row came about, beside its content; by name."""

    def pack(self, content: np.ndarray, history: Mapping[str, np.ndarray] | None = None) -> Mapping[str, Any]:
        """One content, and its history, as fields of a run's row; values that JSON can hold."""


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

    def reasons(self, prompts: Sequence[Prompt], images: "Tensor") -> Sequence[str | None]:
        """One prompt per image (B, 3, H, W) in [0, 1] -> why it does not show its prompt; "" where it does.

        None marks an image about which nobody can say, e.g. because a server did not answer.
        """


class Refiner(Protocol):
    """A judge that can also measure an image, diagnose it, and say how to draw it better."""

    def critiques(self, prompts: Sequence[Prompt], images: "Tensor") -> Sequence[Critique]:
        """One prompt per image (B, 3, H, W) in [0, 1]; `text` is what is wanted, `condition` what it was drawn for."""


class Asker(Protocol):
    """A judge that takes any question about an image, not only those that it has a wording for."""

    def p_yes_to(self, texts: Sequence[str], images: "Tensor") -> "Tensor":
        """One yes/no question per image (B, 3, H, W) in [0, 1] -> (B,): P(yes), NaN where it gave no answer."""

    def p_answer_to(self, texts: Sequence[str], answers: Sequence[str], images: "Tensor") -> "Tensor":
        """One question and one answer to it, such as "four", per image -> (B,): P(this answer), in any spelling."""


class ResponseWriter(Protocol):
    """Answers questions about images in words. Deterministic, and no answer depends on the questions beside it."""

    def write(
        self, queries: Sequence[str], images: Sequence[np.ndarray | None], seeds: Sequence[int], writing: Writing
    ) -> list[str | None]:
        """One text of the user, one image (H, W, 3) uint8 or None, and one key of all random draws -> each answer.

        None marks a question that got no answer, e.g. because a server did not give one.
        """


class ResponseJudge(ResponseWriter, Protocol):
    """A model of images and text that also says how probable a given answer is."""

    def likelihoods(
        self, queries: Sequence[str], responses: Sequence[Sequence[str]], images: Sequence[np.ndarray | None]
    ) -> list[list[Likelihood]]:
        """One text of the user, some answers to it, one image (H, W, 3) uint8 or None -> log p of each answer.

        An answer has the tokens that the model would write in its own turn; the token that closes the turn does not
        count, so that the likelihood of "1" is that of the first word of a verdict.
        """


class ResponseScorer(Protocol):
    """Scores answers by themselves, e.g. by how near they are to an image; higher is better."""

    def scores(
        self, queries: Sequence[str], responses: Sequence[Sequence[str]], images: Sequence[np.ndarray]
    ) -> list[list[float]]:
        """One text of the user, some answers to it, one image (H, W, 3) uint8 -> the score of each answer, or NaN."""

    def drawn_scores(self, prompts: Sequence[str], drawn: Sequence[Sequence[np.ndarray]]) -> list[list[float]]:
        """One prompt and some images (H, W, 3) uint8 that were drawn for it -> the score of each image, or NaN."""


class Strategy(Protocol):
    """Spends a budget of candidates on each image.

    Built as `strategy(sampler, judge, num_candidates, options)`. The class has `Options`, its config keys;
    `questions(options)`, what it asks a judge; and `check(num_candidates, num_steps, options)`, which refuses with a
    ValueError. `genloop.search.strategy.Search` has all of them.
    """

    def search(self, pairs: Sequence[tuple[Prompt, int]], run_seed: int) -> Iterable[Choice]:
        """One choice for each (prompt, sample) pair, in order."""


class Detector(Protocol):
    """Finds objects."""

    classes: Sequence[str]

    def detect(self, images: Sequence[np.ndarray]) -> list[list[Detection]]:
        """Images (H, W, 3) uint8 RGB, sizes may differ -> the detections of each, unsorted, unfiltered."""


class Selective(Protocol):
    """A detector that can leave out what nobody will look at."""

    def detect_for(self, images: Sequence[np.ndarray], wanted: Sequence[Wanted]) -> list[list[Detection]]:
        """As `detect`, one `wanted` an image: only what is above its threshold, masks only of its classes."""


class ColorClassifier(Protocol):
    """Names the colour of detected objects."""

    def scores(self, requests: Sequence[tuple[np.ndarray, Sequence[Detection]]]) -> list[np.ndarray]:
        """Requests, each an image (H, W, 3) uint8 RGB and detections in it, all of one class -> (N, 10) float32 each.

        The colours are those of `genloop.records.COLORS`; the highest score, the first of equals, names the colour. No
        row depends on the requests beside it.
        """


class ImageTokenizer(Protocol):
    """Images <-> discrete codes in [0, num_codes), row-major over the grid."""

    num_codes: int
    grid: tuple[int, int]  # rows, columns of the training size

    def encode(self, images: "Tensor") -> "Tensor":
        """(B, 3, H, W) in [0, 1] -> (B, h*w) int64."""

    def decode(self, codes: "Tensor", shape: tuple[int, int] | None = None) -> "Tensor":
        """(B, h*w) int64 of a grid of `shape` (default `grid`) -> (B, 3, H, W) in [0, 1]."""
