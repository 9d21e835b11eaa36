"""Paired comparison of two evaluations of the same prompts: differences, intervals, p-values, detectable differences.

Images are paired by (prompt, sample). Prompts are the clusters: intervals of differences are paired bootstraps over
prompts, p-values those of a sign-flip permutation test, Holm-corrected for the number of tasks. McNemar's
exact test over images is given because it is well known; it assumes independent images, so its p-values are too small.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from genloop.runs.evaluations import EvaluatedImage, Evaluation
from genloop.stats.comparison.regime import COVERAGE, Differing, differing
from genloop.stats.intervals import Interval
from genloop.stats.nearness import Nearness, is_near, nearness
from genloop.stats.paired import detectable, holm, mcnemar, sign_flip_test, standard_error, weighted_sign_flip_test
from genloop.stats.rates import Kind, Rate, in_order, rates
from genloop.stats.resampling import paired_bootstrap

SIGNIFICANT = 0.05
OVERALL = "overall"
Pair = tuple[EvaluatedImage, EvaluatedImage]


@dataclass(frozen=True, slots=True)
class Change:
    """One task, or "overall" (the mean of the tasks): the later run b minus the base a."""

    task: str
    prompts: int
    images: int
    a: Rate
    b: Rate
    difference: Interval  # paired bootstrap over prompts
    only_a: int  # images that only a has right
    only_b: int
    mcnemar: float  # p over images
    better: int  # prompts
    worse: int
    sign: float  # p of the exact sign test over prompts
    p: float  # sign-flip test over prompts; of a task Holm-corrected for the number of tasks
    detectable: float | None  # the true difference found with 80 % power; None: too few prompts

    @property
    def result(self) -> str:
        """better, worse or same: the sign of a significant difference."""
        if self.p >= SIGNIFICANT:
            return "same"
        return "better" if self.difference.estimate > 0 else "worse"


@dataclass(frozen=True, slots=True)
class ChangedPrompt:
    """A prompt that got better or worse: right images in a and in b, and the images whose verdicts differ."""

    prompt_index: int
    text: str
    tag: str
    images: int
    a: int
    b: int
    turned: tuple[Pair, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """The whole comparison; changes by task, "overall" last."""

    changes: tuple[Change, ...]
    near: tuple[Nearness | None, Nearness | None]  # None: rows hold no distances
    near_flips: int | None  # of the images whose verdicts differ, those near a threshold in either run
    flips: tuple[ChangedPrompt, ...]  # the greatest changes first
    unpaired: tuple[int, int]  # images that only one run has
    upper_bounds: tuple[bool, bool]  # whether a search chose the images by the evaluator itself


def pair_up(a: Evaluation, b: Evaluation) -> tuple[list[Pair], tuple[int, int]]:
    """The pairs in the order of a, and how many images of each have no partner; ValueError when none has one."""
    ours, theirs = _places(a.images), _places(b.images)
    pairs = [(image, theirs[place]) for place, image in ours.items() if place in theirs]
    if not pairs:
        raise ValueError(f"{a.path} and {b.path} have no image of the same prompt and sample; nothing can be paired")
    return pairs, (len(ours) - len(pairs), len(theirs) - len(pairs))


def coverage(a: Evaluation, b: Evaluation) -> tuple[str, str]:
    """A description of the images of each run; "" twice when prompts and samples are the same."""
    ours, theirs = _places(a.images), _places(b.images)
    if ours.keys() == theirs.keys():
        return "", ""
    shared = len(ours.keys() & theirs.keys())
    texts = [f"{len(places)} images of {len({key for key, _, _ in places})} prompts" for places in (ours, theirs)]
    return texts[0], f"{texts[1]}, {shared} in both"


def conditions_of(a: Evaluation, b: Evaluation) -> list[Differing]:
    """Conditions in which two runs differ: generation, judging, and coverage. `refuse` decides which are an error."""
    covers = coverage(a, b)
    return differing(a.card, b.card) + ([Differing(COVERAGE, *covers, "making")] if any(covers) else [])


def compare(
    a: Evaluation, b: Evaluation, seed: int, *, kind: Kind = "bootstrap", num_resamples: int = 4000
) -> Comparison:
    """b against a, over the images that both have."""
    pairs, unpaired = pair_up(a, b)
    tags = [image.tag for image, _ in pairs]
    sides = [_rates([pair[side] for pair in pairs], kind, seed, num_resamples) for side in (0, 1)]
    raw = []
    for number, tag in enumerate(in_order(tags)):
        ours = [pair for pair in pairs if pair[0].tag == tag]
        raw.append(_change(tag, ours, (sides[0][tag], sides[1][tag]), seed + number, num_resamples, len(set(tags))))
    corrected = holm([change.p for change in raw])
    changes = [replace(change, p=p) for change, p in zip(raw, corrected)]
    changes.append(_change(OVERALL, pairs, (sides[0][OVERALL], sides[1][OVERALL]), seed, num_resamples))
    turned = [pair for pair in pairs if pair[0].correct != pair[1].correct]
    knows = all(image.tells_distance for pair in pairs for image in pair)
    near_flips = sum(is_near(a.distance) or is_near(b.distance) for a, b in turned) if knows else None
    near = nearness_of([a for a, _ in pairs]), nearness_of([b for _, b in pairs])
    bounds = a.is_upper_bound, b.is_upper_bound
    return Comparison(tuple(changes), near, near_flips, tuple(_flips(pairs)), unpaired, bounds)


def nearness_of(images: Sequence[EvaluatedImage]) -> Nearness | None:
    """How many decisions rounding could change; None when rows hold no distances, as in GenEval's result files."""
    if not all(image.tells_distance for image in images):
        return None
    return nearness([image.distance for image in images], [image.prompt for image in images])


def _places(images: Sequence[EvaluatedImage]) -> dict[tuple[str, int, int], EvaluatedImage]:
    """By prompt, which of equal prompts, and sample."""
    folders: dict[str, list[int]] = {}
    for image in images:
        known = folders.setdefault(image.prompt, [])
        if image.prompt_index not in known:
            known.append(image.prompt_index)
    return {(image.prompt, folders[image.prompt].index(image.prompt_index), image.sample): image for image in images}


def _rates(images: Sequence[EvaluatedImage], kind: Kind, seed: int, num_resamples: int) -> dict[str, Rate]:
    found = rates(
        [float(image.correct) for image in images],
        [image.prompt for image in images],
        [image.tag for image in images],
        kind=kind,
        seed=seed,
        num_resamples=num_resamples,
    )
    return {**found.tasks, OVERALL: found.overall}


def _change(
    task: str,
    pairs: Sequence[Pair],
    sides: tuple[Rate, Rate],
    seed: int,
    num_resamples: int,
    num_claims: int = 1,
) -> Change:
    """Of one task's pairs, one of `num_claims`, or, for "overall", of all."""
    tags = [a.tag for a, _ in pairs]
    prompts = [a.prompt for a, _ in pairs]
    difference = paired_bootstrap(
        [float(b.correct) for _, b in pairs],
        [float(a.correct) for a, _ in pairs],
        prompts,
        seed,
        tags=tags,
        num_resamples=num_resamples,
    )
    steps = _steps(pairs)
    only_a, only_b = (sum(step == sign for step in (b.correct - a.correct for a, b in pairs)) for sign in (-1, 1))
    better, worse = (sum(sign * step > 0 for _, step, _ in steps) for sign in (1, -1))
    error, p = _error_and_p(steps, seed)
    num_tasks = len(set(tags))
    step = 1 / len(pairs) if num_tasks == 1 else 0
    reach = detectable(error, len(steps) - num_tasks, step=step, level=1 - SIGNIFICANT / num_claims)
    return Change(
        task=task,
        prompts=len(steps),
        images=len(pairs),
        a=sides[0],
        b=sides[1],
        difference=difference,
        only_a=only_a,
        only_b=only_b,
        mcnemar=mcnemar(only_b, only_a),
        better=better,
        worse=worse,
        sign=mcnemar(better, worse),
        p=p,
        detectable=reach if reach <= 1 else None,  # no difference is larger than 100 points
    )


def _steps(pairs: Sequence[Pair]) -> list[tuple[str, int, int]]:
    """Of each prompt its task, how many more images b has right, and its number of images."""
    prompts: dict[tuple[str, str], list[int]] = {}
    for a, b in pairs:
        prompts.setdefault((a.tag, a.prompt), []).append(int(b.correct) - int(a.correct))
    return [(tag, sum(steps), len(steps)) for (tag, _), steps in prompts.items()]


def _error_and_p(steps: Sequence[tuple[str, int, int]], seed: int) -> tuple[float, float]:
    """Standard error and p-value of the mean of the tasks' differences; of one task the p-value is exact."""
    by_task: dict[str, list[tuple[int, int]]] = {}
    for tag, step, count in steps:
        by_task.setdefault(tag, []).append((step, count))
    errors = [standard_error(*zip(*task)) for task in by_task.values()]
    error = sum(one**2 for one in errors) ** 0.5 / len(errors)
    if len(by_task) == 1:
        return error, sign_flip_test([step for _, step, _ in steps])
    sizes: Mapping[str, int] = {tag: sum(count for _, count in task) for tag, task in by_task.items()}
    return error, weighted_sign_flip_test([step / sizes[tag] for tag, step, _ in steps], seed)


def _flips(pairs: Sequence[Pair]) -> list[ChangedPrompt]:
    prompts: dict[str, list[Pair]] = {}
    for pair in pairs:
        prompts.setdefault(pair[0].prompt, []).append(pair)
    found = []
    for ours in prompts.values():
        turned = tuple(pair for pair in ours if pair[0].correct != pair[1].correct)
        first = ours[0][0]
        right = [sum(pair[side].correct for pair in ours) for side in (0, 1)]
        if turned:
            found.append(
                ChangedPrompt(first.prompt_index, first.text, first.tag, len(ours), right[0], right[1], turned)
            )
    return sorted(found, key=lambda flip: (-abs(flip.b - flip.a) / flip.images, flip.prompt_index))
