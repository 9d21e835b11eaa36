"""The records that pass between the parts of the suite: prompts, units, detections, scores, choices, verdicts.

Plain frozen dataclasses, no torch. `Prompt` is one line of a prompt file with its line of GenEval metadata
(Ghosh et al. 2023): which object classes, how many, of which colour, in which relation to which other object.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

TAGS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
PALETTE = {  # GenEval's ten colours, as pictures of the suite show them
    "red": (220, 40, 40),
    "orange": (255, 140, 20),
    "yellow": (250, 230, 60),
    "green": (40, 160, 70),
    "blue": (40, 80, 220),
    "purple": (130, 50, 180),
    "pink": (255, 150, 200),
    "brown": (120, 70, 30),
    "black": (15, 15, 15),
    "white": (245, 245, 245),
}
COLORS = tuple(PALETTE)
RELATIONS = ("left of", "right of", "above", "below")


ROLES = ("system", "user", "assistant")


@dataclass(frozen=True, slots=True)
class ChatTurn:
    """What one role says in a chat; `images` name pictures that stand in front of the text."""

    role: str
    text: str
    images: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Clause:
    """One requirement: `count` objects of a class, of a colour, or in a relation to those of an earlier clause."""

    class_name: str
    count: int
    color: str | None = None
    position: tuple[str, int] | None = None  # (relation, index of the target clause in `include`)

    def metadata(self) -> dict[str, Any]:
        """The clause in GenEval's key order."""
        row: dict[str, Any] = {"class": self.class_name, "count": self.count}
        if self.color is not None:
            row["color"] = self.color
        if self.position is not None:
            row["position"] = [self.position[0], self.position[1]]
        return row


@dataclass(frozen=True, slots=True)
class Prompt:
    """One line of a prompt file. `tag` is None when the file has no metadata.

    `detailed_caption` is the text in other words when the generator reads that one; judges always see `text`.
    """

    index: int
    text: str
    tag: str | None = None
    include: tuple[Clause, ...] = ()
    exclude: tuple[Clause, ...] = ()
    detailed_caption: str | None = None

    @property
    def condition(self) -> str:
        """What a generator reads."""
        return self.text if self.detailed_caption is None else self.detailed_caption

    def metadata(self) -> dict[str, Any]:
        """The line in GenEval's schema and key order: tag, include, [exclude], prompt, [detailed_caption]."""
        if self.tag is None:
            return {"prompt": self.text}
        row: dict[str, Any] = {"tag": self.tag, "include": [clause.metadata() for clause in self.include]}
        if self.exclude:
            row["exclude"] = [clause.metadata() for clause in self.exclude]
        row["prompt"] = self.text
        return row if self.detailed_caption is None else row | {"detailed_caption": self.detailed_caption}


@dataclass(frozen=True, slots=True)
class Unit:
    """A fixed slice [start, stop) of the items of a run; independent of the number of workers."""

    name: str
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, slots=True, eq=False)
class Detection:
    """One detected object. `box` is (x1, y1, x2, y2) in pixels, `mask` (H, W) bool or None, `area` its pixels.

    A detector that was told that nobody looks at a mask may give its area alone.
    """

    class_name: str
    score: float
    box: tuple[float, float, float, float]
    mask: np.ndarray | None = None
    area: int | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """What of an image's detections will be looked at: scores above `threshold` (as float32), masks of some classes."""

    threshold: float
    masks_of: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether an image shows what its prompt asks for; `reason` is "" or one line a failed clause."""

    correct: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Seed:
    """What keys the random numbers of one candidate: nothing else may influence them."""

    run: int
    prompt: int
    sample: int
    candidate: int


@dataclass(frozen=True, slots=True, eq=False)
class Judgement:
    """One answer about a path: after how many of its steps, to which question, and the guess that was shown.

    `p_yes` is NaN where the judge gave no answer.
    """

    step: int
    question: str
    p_yes: float
    guess: np.ndarray


@dataclass(frozen=True, slots=True)
class Critique:
    """What a critic says of an image: measured features, what is wrong, what would help, how to ask for it.

    `diagnosis` and `actions` are JSON objects of the refinement corpus, `prompt` is the refined prompt. `problems` says
    why answers were refused, one text an attempt; with `failed` the last was refused too, and nothing is to be changed.
    """

    features: Mapping[str, float]
    reasoning: str = ""
    diagnosis: Sequence[Mapping[str, Any]] = ()
    actions: Sequence[Mapping[str, Any]] = ()
    prompt: str = ""
    problems: Sequence[str] = ()
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Redrawing:
    """How a path was noised again: the text it was then drawn for, the share of noise, the factor of the guidance."""

    prompt: str
    strength: float
    guidance: float


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """One path: its content, which its sampler can decode and pack, its last P(yes) by question, and all answers.

    A path that was cut has been walked for `cut_at` steps; what of its content is undecided its sampler knows. `parent`
    is the candidate that a path branched off. `reason`: what was found wrong with it, in words;
    `critique`: the same with what would help. `redrawn`: how it came from its parent, where it was noised again.
    """

    index: int
    content: np.ndarray  # image tokens (n,), or latents
    history: Mapping[str, np.ndarray]  # how it came about, by the sampler's names: {"revealed_at": (n,)} of tokens
    num_steps: int  # that it was walked, corrections included
    p_yes: Mapping[str, float] = field(default_factory=dict)
    trace: Sequence[Judgement] = ()
    cut_at: int | None = None
    parent: int | None = None
    reason: str = ""
    critique: Critique | None = None
    redrawn: Redrawing | None = None


@dataclass(frozen=True, slots=True)
class Cost:
    """What a choice took: decoding steps of single candidates (guided ones count once, a confidence one and a half),
    images shown to a judge, and the operations of both and of decoding pixels.
    """

    generator_steps: float
    judge_calls: int
    flops: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """What a strategy decided for one image: the index of the chosen candidate among all it drew."""

    chosen: int
    candidates: Sequence[Candidate]
    cost: Cost


@dataclass(frozen=True, slots=True)
class Likelihood:
    """Of an answer: the sum of the log-probabilities of its tokens (natural log), and how many they are."""

    log_p: float
    num_tokens: int

    @property
    def mean(self) -> float:
        """Per token; longer answers are not less probable by it."""
        return self.log_p / max(self.num_tokens, 1)


@dataclass(frozen=True, slots=True)
class Writing:
    """How an answer is drawn: at temperature 0 each token is the most probable one, and `top_p` says nothing."""

    temperature: float = 0.0
    top_p: float = 1.0
    max_new_tokens: int = 512


@dataclass(frozen=True, slots=True)
class HeldOutAnswer:
    """A judge's answer to a held-out question (`scenes`: outcome of a drawn scene) about an image and its prompt."""

    question: str
    step: str  # that the image is from: "6", "final", ...
    tag: str
    prompt: str
    label: float
    margin: float = float("nan")  # logit(yes) - logit(no), whose sigmoid is P(yes) here


def branch_seed(seed: Seed, key: int, step: int, number: int) -> Seed:
    """The seed of a continuation: other noise than any path of the run has."""
    text = f"branch/{seed.run}/{key}/{step}/{number}"
    run = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1
    return Seed(run, seed.prompt, seed.sample, seed.candidate)


def color_names(scores: np.ndarray) -> list[str]:
    """(N, 10) scores -> the colour with the highest one of each row, the first of equals."""
    return [COLORS[place] for place in scores.argmax(axis=1)]


def pack_tokens(tokens: np.ndarray) -> str:
    """(n,) integers in [0, 65535] -> base64 of little-endian uint16."""
    values = np.asarray(tokens)
    if values.size and (values.min() < 0 or values.max() > 65535):
        raise ValueError(f"tokens must be in [0, 65535], found {values.min()}..{values.max()}")
    return base64.b64encode(values.astype("<u2").tobytes()).decode()


def unpack_tokens(text: str) -> np.ndarray:
    """The inverse of `pack_tokens`: -> (n,) int64. ValueError for a text that `pack_tokens` does not write."""
    return np.frombuffer(base64.b64decode(text, validate=True), dtype="<u2").astype(np.int64)
