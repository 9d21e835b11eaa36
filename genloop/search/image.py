"""The search for one image, as its strategy sees it: paths to walk, questions to ask, the bill.

A strategy is written for one image, as a Python generator: `yield from` one of the methods below hands a request to
the scheduler, which serves the requests of many images together, and comes back with the answer. A generator sees its
own answers only, so what it decides cannot depend on what is decoded beside it.

n = cells of a content (of Show-o: image tokens), B = paths or images, H, W = pixels.
"""

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from genloop.protocols import Judge, Sampler
from genloop.records import Candidate, Choice, Cost, Critique, Judgement, Prompt, Redrawing, Seed

if TYPE_CHECKING:
    from torch import Tensor

NOT_JUDGED = "not judged: the judge gave no answer"


@dataclass(eq=False, slots=True)
class PathSnapshot:
    """A path after one of its steps: what there is to look at. It stays when the path goes on."""

    path: "Path"
    state: Any  # of the sampler
    row: int  # in `state`
    before: int = 0  # steps before the path was reopened
    pixels: "Tensor | None" = None  # (3, H, W), once somebody looked
    asked: tuple[str, ...] = ()  # questions about these pixels so far: a judge shares work between them

    @property
    def steps(self) -> int:
        """Steps done since the path was started or reopened."""
        return self.state.steps[self.row]

    @property
    def total(self) -> int:
        """All steps done, of `num_steps` and of every correction."""
        return self.before + self.steps

    @property
    def guess(self) -> "Tensor":
        """The whole content as the last step would end it; the content itself once the path is done."""
        return self.state.guess[self.row]


@dataclass(eq=False)
class Path:
    """One candidate on its way. Its index keys its noise and is its place among the candidates."""

    index: int
    now: PathSnapshot = field(init=False)
    parent: int | None = None
    p_yes: dict[str, float] = field(default_factory=dict)  # the last answer to each question
    trace: list[Judgement] = field(default_factory=list)
    reason: str = ""
    prompt: Prompt | None = None  # that it is drawn for, where that is not the image's own
    critique: Critique | None = None
    redrawn: Redrawing | None = None

    @property
    def steps(self) -> int:
        """Steps done since the path was started or reopened."""
        return self.now.steps

    @property
    def length(self) -> int:
        """Steps at which it is done."""
        return self.now.state.lengths[self.now.row]

    @property
    def is_done(self) -> bool:
        """Whether everything is decided."""
        return self.steps == self.length

    def record(self, sampler: Sampler[Any]) -> Candidate:
        """What is kept of it; an unfinished path counts as cut where it stands."""
        now = self.now
        return Candidate(
            index=self.index,
            content=now.state.content[now.row].cpu().numpy(),
            history=sampler.history(now.state, now.row),
            num_steps=now.total,
            p_yes=dict(self.p_yes),
            trace=tuple(self.trace),
            cut_at=None if self.is_done else now.total,
            parent=self.parent,
            reason=self.reason,
            critique=self.critique,
            redrawn=self.redrawn,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Walk:
    """Go on with paths, each until it has done `to` steps, or is done. No answer."""

    paths: Sequence[Path]
    to: int | None


@dataclass(frozen=True, slots=True, eq=False)
class Ask:
    """P(yes) to a question about snapshots (their previews; the image where a path is done), or about given images."""

    question: str
    snapshots: Sequence[PathSnapshot]
    images: "Tensor | None"  # (B, 3, H, W), one a snapshot, instead of what it shows; such answers are not recorded


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """The pixels of snapshots, (B, 3, H, W)."""

    snapshots: Sequence[PathSnapshot]


@dataclass(frozen=True, slots=True, eq=False)
class Compare:
    """P(the first is better) of pairs of snapshots; only of a judge that compares."""

    first: Sequence[PathSnapshot]
    second: Sequence[PathSnapshot]


@dataclass(frozen=True, slots=True, eq=False)
class Explain:
    """What is wrong with snapshots, in words; only of a judge that gives reasons."""

    snapshots: Sequence[PathSnapshot]


@dataclass(frozen=True, slots=True, eq=False)
class Criticise:
    """What is wrong with snapshots, by measured features, and how to ask for better; only of a judge that refines."""

    snapshots: Sequence[PathSnapshot]


@dataclass(frozen=True, slots=True, eq=False)
class TokenConfidence:
    """How well each cell of the contents fits the others, (B, n)."""

    paths: Sequence[Path]


Request = Walk | Ask | Look | Compare | Explain | Criticise | TokenConfidence
T = TypeVar("T")
Steps = Generator[Request, Any, T]  # of a strategy: ends in T


class ImageSearch:
    """The search for one image of one prompt."""

    def __init__(self, prompt: Prompt, sample: int, run_seed: int, sampler: Sampler[Any], judge: Judge | None) -> None:
        self.prompt, self.sample, self.run_seed = prompt, sample, run_seed
        self.sampler, self.judge = sampler, judge
        self.paths: list[Path] = []
        self.generator_steps = 0.0
        self.decodes = 0
        self.judge_calls = 0
        self.judge_flops = 0.0
        self._known_flops: dict[tuple[str, ...], float] = {}

    @property
    def compares(self) -> bool:
        """Whether the judge can be asked to compare."""
        return hasattr(self.judge, "p_first")

    @property
    def explains(self) -> bool:
        """Whether the judge can be asked for reasons."""
        return hasattr(self.judge, "reasons")

    def seed(self, index: int) -> Seed:
        """What keys the noise of a path."""
        return Seed(self.run_seed, self.prompt.index, self.sample, index)

    def start(self, count: int = 1) -> list[Path]:
        """New paths, nothing of which is decided."""
        first = len(self.paths)
        state = self.sampler.start([self.prompt] * count, [self.seed(first + i) for i in range(count)])
        return [self._add(state, row) for row in range(count)]

    def branch(self, path: Path, count: int = 1) -> list[Path]:
        """New paths that stand where `path` stands, with other noise from there on."""
        first = len(self.paths)
        state = path.now.state.select([path.now.row] * count)
        state = self.sampler.branch(state, [self.seed(first + i) for i in range(count)])
        return [self._add(state, row, path) for row in range(count)]

    def remask(self, path: Path, drop: "Tensor", num_steps: int) -> None:
        """Reopen the cells of `path` where `drop` (n,) is True; the next `num_steps` of its steps fill them."""
        state = self.sampler.remask(path.now.state.select([path.now.row]), drop[None], num_steps)
        path.now = PathSnapshot(path, state, 0, path.now.total)

    def correct(self, path: Path, reason: str) -> None:
        """Reopen all of `path`, to be drawn anew by a generator that knows what it was and what is wrong with it.

        Reading the old image is one pass without guidance: half a step.
        """
        self.generator_steps += 0.5
        state = path.now.state.select([path.now.row])
        path.now = PathSnapshot(path, self.sampler.correct(state, [self.prompt], [reason]), 0, path.now.total)

    def renoise(
        self, path: Path, prompt: Prompt, strength: float, guidance: float, cells: "Tensor | None" = None
    ) -> None:
        """Noise a finished path, or its `cells` (n,), again, to be drawn for `prompt` at a factor of the guidance."""
        drop = None if cells is None else cells[None]
        state = self.sampler.renoise(path.now.state.select([path.now.row]), [prompt], strength, guidance, drop)
        path.now = PathSnapshot(path, state, 0, path.now.total)
        path.prompt, path.redrawn = prompt, Redrawing(prompt.condition, strength, guidance)

    def walk(self, paths: Sequence[Path], to: int | None = None) -> Steps[None]:
        """Go on with `paths`, each until it has done `to` steps; to its end without."""
        yield Walk(paths, to)

    def ask(
        self, question: str, about: Sequence[Path | PathSnapshot], images: "Tensor | None" = None
    ) -> Steps[list[float]]:
        """P(yes) about each path as it stands, or each snapshot, or about `images` (B, 3, H, W); NaN: no answer."""
        return (yield Ask(question, _snapshots(about), images))

    def look(self, about: Sequence[Path | PathSnapshot]) -> "Steps[Tensor]":
        """Pixels (B, 3, H, W) in [0, 1] of each path as it stands, or each snapshot."""
        return (yield Look(_snapshots(about)))

    def compare(
        self, first: Sequence[Path | PathSnapshot], second: Sequence[Path | PathSnapshot]
    ) -> Steps[list[float]]:
        """P(the first is better) of each pair."""
        return (yield Compare(_snapshots(first), _snapshots(second)))

    def explain(self, about: Sequence[Path | PathSnapshot]) -> Steps[list[str]]:
        """What is wrong with each, in words."""
        return (yield Explain(_snapshots(about)))

    def criticise(self, about: Sequence[Path | PathSnapshot]) -> Steps[list[Critique]]:
        """What a critic measures and finds wrong with each, and how it would ask for a better one."""
        return (yield Criticise(_snapshots(about)))

    def confidence(self, paths: Sequence[Path]) -> "Steps[Tensor]":
        """How well each cell of each path fits the others: (B, n)."""
        return (yield TokenConfidence(paths))

    def best(self, question: str, paths: Sequence[Path]) -> Path:
        """The path with the highest last answer; the first of equals. Unknown answers come last."""
        return paths[ranking([path.p_yes.get(question, math.nan) for path in paths])[0]]

    def charge(self, questions: tuple[str, ...], paid: tuple[str, ...] = ()) -> None:
        """One more image shown to the judge; the first `paid` questions about it have been charged before."""
        assert self.judge is not None
        self.judge_calls += 1
        self.judge_flops += self._flops(questions) - (self._flops(paid) if paid else 0.0)

    def choice(self, chosen: Path) -> Choice:
        """The record of the whole search, which ends with it: its paths show nothing any more."""
        assert chosen.is_done, "a strategy returned an unfinished path"
        if any(map(math.isnan, chosen.p_yes.values())) and not chosen.reason:
            chosen.reason = NOT_JUDGED
        self.decodes += chosen.now.pixels is None
        sampler = self.sampler
        flops = getattr(sampler, "flops_to_begin", 0.0)  # of what all paths begin with
        flops += self.generator_steps * sampler.flops_per_step + self.decodes * sampler.flops_per_decode
        cost = Cost(self.generator_steps, self.judge_calls, flops + self.judge_flops)
        candidates = [path.record(sampler) for path in self.paths]
        for path in self.paths:
            del path.now  # a path and its snapshot refer to each other: pixels and prefixes would be freed late
        return Choice(chosen.index, candidates, cost)

    def _flops(self, questions: tuple[str, ...]) -> float:
        assert self.judge is not None
        if questions not in self._known_flops:
            self._known_flops[questions] = self.judge.flops(questions, self.prompt)
        return self._known_flops[questions]

    def _add(self, state: Any, row: int, parent: Path | None = None) -> Path:
        path = Path(len(self.paths), parent=None if parent is None else parent.index)
        path.now = PathSnapshot(path, state, row, 0 if parent is None else parent.now.before)
        self.paths.append(path)
        return path


def ranking(scores: Sequence[float]) -> list[int]:
    """Indices from the best score to the worst; the first of equals first, unknown ones (NaN) last."""
    return sorted(
        range(len(scores)), key=lambda i: (math.isnan(scores[i]), 0.0 if math.isnan(scores[i]) else -scores[i])
    )


def _snapshots(about: Sequence[Path | PathSnapshot]) -> list[PathSnapshot]:
    return [one.now if isinstance(one, Path) else one for one in about]
