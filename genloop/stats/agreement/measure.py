"""How well an evaluator agrees with people: agreement, Cohen's kappa (1960), precision, recall, by task and by margin.

Labels are what the majority of people said; "positive" is an image that shows its prompt. Prompts are the clusters,
also across the images of several models. C = prompts, R = resamples; cells are (both yes, only the evaluator, only
people, both no).
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from genloop.stats.agreement.votes import Votes
from genloop.stats.clusters import numbered
from genloop.stats.intervals import Interval, clustered_wilson
from genloop.stats.paired import holm, mcnemar, sign_flip_test
from genloop.stats.rates import in_order
from genloop.stats.resampling import bootstrap, paired_bootstrap

ALL = "all"
_ONE_OF_EACH = np.array([[0, 1, 0, 0], [0, 0, 1, 0]])  # two prompts that only the evaluator, only people find right
_EACH_ONCE = np.array([[[0, 1, 0, 0], [0, 0, 0, 1]], [[0, 0, 0, 1], [0, 1, 0, 0]]])  # two on which one of two errs


@dataclass(frozen=True, slots=True)
class AnnotatedImage:
    """One image: what people and what one or two evaluators said of it."""

    prompt: str
    tag: str
    votes: Votes
    verdict: bool
    other: bool | None = None

    @property
    def human(self) -> bool:
        return bool(self.votes.label)


@dataclass(frozen=True, slots=True)
class TaskAgreement:
    """One task, or "all" images. Precision and recall are None where nothing was said to be right, or was right."""

    task: str
    images: int
    prompts: int
    cells: tuple[int, int, int, int]
    human: Interval  # share of images that are right by people
    machine: Interval  # by the evaluator
    agreement: Interval
    kappa: Interval | None  # None where chance alone would agree always
    precision: Interval | None
    recall: Interval | None


@dataclass(frozen=True, slots=True)
class Margin:
    """The images on which people were so divided."""

    majority: int
    minority: int
    images: int
    agreement: Interval


@dataclass(frozen=True, slots=True)
class PairedAgreement:
    """A second evaluator minus the first, in one task or on "all" images."""

    task: str
    images: int
    agreement: Interval  # difference
    kappa: Interval | None
    only_first: int  # images on which only the first agrees with people
    only_other: int
    mcnemar: float  # p over images
    p: float  # sign-flip test over prompts; of a task Holm-corrected for the number of tasks


@dataclass(frozen=True, slots=True)
class Agreement:
    """All of it; `person` is the share of people who are on the majority's side, themselves among it."""

    tasks: tuple[TaskAgreement, ...]  # "all" last
    margins: tuple[Margin, ...]  # the clearest first
    person: Interval
    paired: tuple[PairedAgreement, ...]  # empty without a second evaluator


def agreement(images: Sequence[AnnotatedImage], seed: int, *, num_resamples: int = 4000) -> Agreement:
    """Measure one evaluator, or two, on images whose people did not tie. ValueError without any."""
    if not images:
        raise ValueError("no image has both a verdict and a majority of people")
    tags = [*in_order([image.tag for image in images]), ALL]
    groups = {tag: [image for image in images if tag in (ALL, image.tag)] for tag in tags}
    has_other = all(image.other is not None for image in images)
    paired = [_pair(tag, ours, seed, num_resamples) for tag, ours in groups.items()] if has_other else []
    corrected = holm([pair.p for pair in paired[:-1]])  # without "all"
    return Agreement(
        tasks=tuple(_measure(tag, ours, seed, num_resamples) for tag, ours in groups.items()),
        margins=tuple(_margins(images)),
        person=_person(images),
        paired=(*(replace(pair, p=p) for pair, p in zip(paired, corrected)), *paired[-1:]),
    )


def cohen_kappa(cells: np.ndarray) -> np.ndarray:
    """(..., 4) counts -> (...,): agreement beyond that of chance; NaN where chance alone always agrees."""
    both, machine, people, neither = np.moveaxis(np.asarray(cells, dtype=np.float64), -1, 0)
    total = both + machine + people + neither
    seen = (both + neither) / total
    yes, human = (both + machine) / total, (both + people) / total
    chance = yes * human + (1 - yes) * (1 - human)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(chance < 1, (seen - chance) / (1 - chance), np.nan)


def _measure(task: str, images: Sequence[AnnotatedImage], seed: int, num_resamples: int) -> TaskAgreement:
    cells = Counter((image.verdict, image.human) for image in images)
    counts = _cells_by_prompt([image.verdict for image in images], images)
    return TaskAgreement(
        task=task,
        images=len(images),
        prompts=len({image.prompt for image in images}),
        cells=(cells[True, True], cells[True, False], cells[False, True], cells[False, False]),
        human=_rate(images, [image.human for image in images]),
        machine=_rate(images, [image.verdict for image in images]),
        agreement=_rate(images, [image.verdict == image.human for image in images]),
        kappa=_resampled(cohen_kappa, counts, _ONE_OF_EACH, seed, num_resamples),
        precision=_rate_among(images, [image.verdict for image in images], [image.human for image in images]),
        recall=_rate_among(images, [image.human for image in images], [image.verdict for image in images]),
    )


def _rate(images: Sequence[AnnotatedImage], values: Sequence[bool]) -> Interval:
    return clustered_wilson([float(value) for value in values], [image.prompt for image in images])


def _rate_among(images: Sequence[AnnotatedImage], those: Sequence[bool], values: Sequence[bool]) -> Interval | None:
    rows = [i for i, is_one in enumerate(those) if is_one]
    return _rate([images[i] for i in rows], [values[i] for i in rows]) if rows else None


def _cells_by_prompt(verdicts: Sequence[bool], images: Sequence[AnnotatedImage]) -> np.ndarray:
    """-> (C, 4)"""
    rows, prompts = numbered([image.prompt for image in images])
    columns = np.array([2 * (not verdict) + (not image.human) for verdict, image in zip(verdicts, images)])
    cells = np.zeros((len(prompts), 4))
    np.add.at(cells, (rows, columns), 1)
    return cells


def _resampled(
    measure: Callable[[np.ndarray], np.ndarray], cells: np.ndarray, ends: np.ndarray, seed: int, num_resamples: int
) -> Interval | None:
    """`measure` of counts by prompt (C, ...) with its interval over prompts; None where it is not defined.

    `ends` (2, ...) are two more prompts for the case that all others are equal.
    """
    if np.isnan(measure(cells.sum(axis=0))):
        return None
    size = cells.mean(axis=0).sum() / ends.mean(axis=0).sum()  # of a prompt, in images
    more = np.concatenate([cells, ends * size])
    return bootstrap(
        lambda weights: measure(np.tensordot(weights, cells, axes=1)),
        np.zeros(len(cells), dtype=int),
        seed,
        extended=lambda weights: measure(np.tensordot(weights, more, axes=1)),
        num_resamples=num_resamples,
    )[0]


def _margins(images: Sequence[AnnotatedImage]) -> list[Margin]:
    found = []
    for margin in sorted({image.votes.margin for image in images}, key=lambda pair: (pair[1] / sum(pair), -sum(pair))):
        ours = [image for image in images if image.votes.margin == margin]
        found.append(Margin(*margin, len(ours), _rate(ours, [image.verdict == image.human for image in ours])))
    return found


def _person(images: Sequence[AnnotatedImage]) -> Interval:
    margins = [(image.prompt, *image.votes.margin) for image in images]
    sides = [(prompt, side) for prompt, most, rest in margins for side in [1.0] * most + [0.0] * rest]
    return clustered_wilson([side for _, side in sides], [prompt for prompt, _ in sides])


def _pair(task: str, images: Sequence[AnnotatedImage], seed: int, num_resamples: int) -> PairedAgreement:
    first = [image.verdict == image.human for image in images]
    other = [image.other == image.human for image in images]
    prompts = [image.prompt for image in images]
    values = [float(value) for value in other], [float(value) for value in first]
    steps: Counter[str] = Counter()
    for prompt, a, b in zip(prompts, first, other):
        steps[prompt] += int(b) - int(a)
    only_first, only_other = (sum(b - a == sign for a, b in zip(first, other)) for sign in (-1, 1))
    said = [image.verdict for image in images], [bool(image.other) for image in images]
    cells = np.stack([_cells_by_prompt(one, images) for one in said], axis=1)  # (C, 2, 4)
    return PairedAgreement(
        task=task,
        images=len(images),
        agreement=paired_bootstrap(*values, prompts, seed, num_resamples=num_resamples),
        kappa=_resampled(_second_minus_first, cells, _EACH_ONCE, seed, num_resamples),
        only_first=only_first,
        only_other=only_other,
        mcnemar=mcnemar(only_other, only_first),
        p=sign_flip_test(list(steps.values())),
    )


def _second_minus_first(cells: np.ndarray) -> np.ndarray:
    """(..., 2, 4) counts -> (...,): kappa of the second evaluator minus that of the first."""
    first, second = np.moveaxis(cohen_kappa(cells), -1, 0)
    return second - first


def label(
    votes: Mapping[tuple[int, int], Votes],
    verdicts: Mapping[tuple[int, int], tuple[str, str, bool]],
    others: Mapping[tuple[int, int], tuple[str, str, bool]] | None = None,
) -> tuple[list[AnnotatedImage], int, int]:
    """Votes and verdicts {place: (prompt, task, right)} -> images that have all, number of ties, of those without."""
    found, ties, missing = [], 0, 0
    for place, ours in sorted(votes.items()):
        if place not in verdicts or (others is not None and place not in others):
            missing += 1
        elif ours.label is None:
            ties += 1
        else:
            prompt, tag, right = verdicts[place]
            found.append(AnnotatedImage(prompt, tag, ours, right, others[place][2] if others is not None else None))
    return found, ties, missing
