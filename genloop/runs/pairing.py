"""Preference pairs of the images of a run of `generate`: of finished images, or of images reopened on their way.

Who looks at images and who draws is handed over as functions of codes. B = images, n = image tokens.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from genloop.data.pairs.rules import Criterion, Rule, Scored, Signal, make_pair, pick
from genloop.data.pairs.per_prompt import PromptPairs
from genloop.records import Prompt, Seed, unpack_tokens
from genloop.runs.generated import GeneratedRun
from genloop.runs.rows import GeneratedRow, RecordedCandidate

Place = tuple[int, int]  # index of a prompt, number of its sample


class Label(NamedTuple):
    """What is known about an image; None where nobody looked, or gave no answer."""

    p_yes: float | None = None
    is_right: bool | None = None


class Redrawn(Protocol):
    """Images that were reopened and continued."""

    @property
    def codes(self) -> np.ndarray:
        """(B, n)"""

    @property
    def kept(self) -> np.ndarray:
        """(B, n) bool: fixed before."""

    @property
    def steps(self) -> np.ndarray:
        """(B, n) that fixed each token."""


LabelImages = Callable[[Sequence[Prompt], np.ndarray], Sequence[Label]]  # prompts (B), codes (B, n) -> B labels


class Redraw(Protocol):
    """Reopens images and continues them."""

    def __call__(
        self,
        prompts: Sequence[Prompt],
        seeds: Sequence[Seed],
        codes: np.ndarray,
        steps: np.ndarray,
        at: np.ndarray,
        number: int,
    ) -> Redrawn:
        """B images: their prompts and seeds, codes and the steps that fixed them (B, n), the steps to reopen at (B,),
        and how often they were reopened before.
        """

    def rehearse(self, prompts: Sequence[Prompt], codes: np.ndarray, kept: np.ndarray) -> None:
        """Take as much memory as for images (B) of which these codes are kept (B, n)."""


def scored(name: str, codes: np.ndarray, steps: np.ndarray | None, label: Label, signal: Signal) -> Scored | None:
    """An image with its score; None when it lacks what decides."""
    score = label.is_right if signal == "verdict" else label.p_yes
    if score is None or np.isnan(score) or (signal == "both" and label.is_right is None):
        return None
    return Scored(name, codes, float(score), label.is_right, steps)


@dataclass(frozen=True, slots=True)
class PlainPairing:
    """Pairs of the finished images of a prompt: all candidates of all its samples that were walked to their end."""

    source: GeneratedRun
    criterion: Criterion
    rule: Rule
    most: int
    seed: int
    label: LabelImages | None  # None: what the source records is enough
    rated: Mapping[Place, bool] | None = None  # verdicts of chosen images, from elsewhere

    def pair_up(self, prompts: Sequence[Prompt]) -> list[PromptPairs]:
        """The pairs of each prompt."""
        ends = [(prompt, row, one) for prompt in prompts for row in self.source.rows[prompt.index] for one in _ends(row)]
        found = {prompt.index: PromptPairs(prompt) for prompt in prompts}
        if not ends:
            return list(found.values())
        codes = np.stack([one.unpacked() for _, _, one in ends])
        seen = self.label([prompt for prompt, *_ in ends], codes) if self.label else [Label()] * len(ends)
        images: dict[int, list[Scored]] = defaultdict(list)
        for (prompt, row, one), tokens, label in zip(ends, codes, seen, strict=True):
            is_chosen = one.candidate == row.chosen
            steps = unpack_tokens(row.revealed_at) if is_chosen else None
            full = Label(
                one.p_yes.get("outcome") if label.p_yes is None else label.p_yes,
                (self.rated or {}).get((prompt.index, row.sample)) if is_chosen and self.rated else label.is_right,
            )
            name = f"{row.sample:04d}-{one.candidate:04d}"
            image = scored(name, tokens, steps, full, self.criterion.signal)
            found[prompt.index].count(image)
            images[prompt.index] += [image] if image else []
        for index, tally in found.items():
            pairs = pick(images[index], self.criterion, self.rule, most=self.most, key=f"{self.seed}/{index}")
            tally.pairs = [make_pair(tally.prompt, *pair, self.criterion.signal) for pair in pairs]
        return list(found.values())


@dataclass(frozen=True, slots=True)
class LocalisedPairing:
    """Pairs of an image and its continuation from one of its own steps, drawn alike from `first` to `last`."""

    source: GeneratedRun
    criterion: Criterion
    most: int
    seed: int
    label: LabelImages
    redraw: Redraw
    first: int
    last: int
    continuations: int
    num_steps: int  # of the sampler: an image that took others was corrected, and says nothing about its steps

    def pair_up(self, prompts: Sequence[Prompt]) -> list[PromptPairs]:
        """The pairs of each prompt; the images of all are drawn and judged together."""
        rows = [(prompt, row) for prompt in prompts for row in self.source.rows[prompt.index]]
        usable = [(prompt, row) for prompt, row in rows if self._is_whole(row)]
        found = {prompt.index: PromptPairs(prompt) for prompt in prompts}
        for prompt, row in rows:
            found[prompt.index].left_out += not self._is_whole(row)
        if not usable:
            return list(found.values())
        codes = np.stack([unpack_tokens(row.tokens) for _, row in usable])
        steps = np.stack([unpack_tokens(row.revealed_at) for _, row in usable])
        labels = self.label([prompt for prompt, _ in usable], codes)
        originals = []
        for (prompt, row), own, fixed, label in zip(usable, codes, steps, labels, strict=True):
            name = f"{row.sample:04d}-{row.chosen:04d}"
            originals.append(scored(name, own, fixed, label, self.criterion.signal))
            found[prompt.index].count(originals[-1])
        for number in range(self.continuations):
            self._continue(found, usable, originals, number)
        for tally in found.values():
            tally.pairs = tally.pairs[: self.most]
        return list(found.values())

    def _is_whole(self, row: GeneratedRow) -> bool:
        is_own = any(one.candidate == row.chosen and one.parent is None for one in row.candidates)
        return is_own and row.num_steps == self.num_steps

    def _continue(
        self,
        found: Mapping[int, PromptPairs],
        usable: Sequence[tuple[Prompt, GeneratedRow]],
        originals: Sequence[Scored | None],
        number: int,
    ) -> None:
        """Reopen every image that has a score, and pair it with its continuation where one of them is preferred."""
        opened = []
        for (prompt, row), image in zip(usable, originals, strict=True):
            at = self._step(prompt, row, number)
            if image is not None and _steps(image).max() >= at:
                opened.append((prompt, Seed(self.source.keys["seed"], prompt.index, row.sample, row.chosen), image, at))
        if not opened:
            return
        prompts, seeds, images, steps = zip(*opened)
        codes, fixed = np.stack([image.codes for image in images]), np.stack([_steps(image) for image in images])
        drawn = self.redraw(prompts, seeds, codes, fixed, np.array(steps), number)
        labels = self.label(prompts, drawn.codes)
        for i, (prompt, image, at) in enumerate(zip(prompts, images, steps, strict=True)):
            name = f"{image.name}-{number:02d}"
            other = scored(name, drawn.codes[i], drawn.steps[i], labels[i], self.criterion.signal)
            self._pair(found[prompt.index], image, other, drawn.kept[i], at)

    def _pair(self, tally: PromptPairs, image: Scored, other: Scored | None, kept: np.ndarray, at: int) -> None:
        """Count an image and its continuation, and add their pair where one is preferred."""
        if other is None:
            tally.left_out += 1
            return
        wins, loses = self.criterion.holds(other, image), self.criterion.holds(image, other)
        tally.reopened += 1
        tally.wins, tally.losses = tally.wins + wins, tally.losses + loses
        if wins or loses:
            sides = (other, image) if wins else (image, other)
            pair = make_pair(
                tally.prompt, *sides, self.criterion.signal, kind="localised", kept=kept, reopened_at=at
            )
            tally.pairs = [*tally.pairs, pair]

    def _step(self, prompt: Prompt, row: GeneratedRow, number: int) -> int:
        rng = np.random.default_rng([self.seed, 7, prompt.index, row.sample, number])
        return int(rng.integers(self.first, self.last + 1))


def _ends(row: GeneratedRow) -> list[RecordedCandidate]:
    return [one for one in row.candidates if one.cut_at is None]


def _steps(image: Scored) -> np.ndarray:
    assert image.steps is not None
    return image.steps
