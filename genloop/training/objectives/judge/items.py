"""The items of a step of judge training: a function of (seed, step) and the data alone.

An item stays together on one rank and in one micro-batch. It is one of
    group          some paths of one prompt, each with its final image and previews of the same random steps, so that
                   they can be ranked; or previews of unknown steps, which are not ranked
    contrast       two drawn scenes, two sentences, each asked about both scenes
    conversation   one published conversation
Tasks are drawn with equal probability, then a prompt, then its paths.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from genloop.data.judge.dataset import JudgeSet
from genloop.data.judge.examples import QUESTIONS, UNKNOWN, UNKNOWN_STEP
from genloop.training.objectives.judge.branches import NAME, Branch, Branches
from genloop.training.objectives.judge.data import JudgeData
from genloop.training.objectives.judge.settings import BatchSettings
from genloop.training.task import Plan

_TERMS = (*QUESTIONS, "reason", "words", "names")  # by the kind of a supervised position


@dataclass(frozen=True, slots=True)
class Item:
    """What stays together. `ranked`: examples of one prompt at one step, a tuple for each step."""

    kind: str  # group, contrast, conversation
    source: int  # number of the data set; -1: the conversations
    examples: tuple[int, ...]  # of the data set; the number of the conversation
    ranked: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True, eq=False)
class AskedImage:
    """One image and what is asked about it: a branch for each of `examples`, whose labels count."""

    image: tuple[int, int]  # (data set, image); (-1, number) for a conversation's
    branches: Sequence[Branch]
    examples: Sequence[int]


class ItemPlans:
    """`plan(step)` draws items from several data sets, each as often as its weight says.

    With `reasons` and `cells` these terms are part of the loss. The plan's weight is 1; `shared` holds the number of
    items and counts the answers, pairs, names, cells of the whole batch, by term of the loss.
    """

    def __init__(
        self,
        data: JudgeData,
        weights: Sequence[float],
        branches: Branches,
        settings: BatchSettings,
        *,
        seed: int,
        reasons: bool = False,
        cells: bool = True,
    ) -> None:
        self.data, self.branches, self.settings = data, branches, settings
        self.seed, self.reasons, self.cells = seed, reasons, cells
        self._tasks = [s.tasks(unknown_steps=bool(settings.previews)) for s in data.sets]
        self._contrasts = [s.contrasts() for s in data.sets]
        self._group_weights = _probabilities(weights, [bool(tasks) for tasks in self._tasks])
        self._contrast_weights = _probabilities(weights, [bool(contrasts) for contrasts in self._contrasts])
        settings.check_filled("groups", there=self._group_weights is not None)
        settings.check_filled("scenes", there=self._contrast_weights is not None)
        settings.check_filled("conversations", there=bool(data.conversations))

    def __call__(self, step: int) -> Plan[Item]:
        rng = np.random.default_rng([self.seed, 1, step])
        items = [self._draw_group(rng) for _ in range(self.settings.groups)]
        items += [self._draw_contrast(rng) for _ in range(self.settings.scenes // 2)]
        conversations = len(self.data.conversations)
        for _ in range(self.settings.conversations):
            items.append(Item("conversation", -1, (int(rng.integers(conversations)),)))
        totals: Counter[str] = Counter()
        for item in items:
            totals.update(self.counts(item))
        return Plan(items, 1.0, (len(items), totals))

    def asked(self, item: Item) -> list[AskedImage]:
        """The images of an item, each once, with their branches."""
        if item.source < 0:
            (number,) = item.examples
            branch = self.branches.of_conversation(self.data.conversations[number].turns)
            return [AskedImage((-1, number), [branch], [-1])]
        data = self.data.sets[item.source]
        by_image: dict[int, tuple[list[Branch], list[int]]] = {}
        for example in item.examples:
            branches, owners = by_image.setdefault(int(data.image_of[example]), ([], []))
            for branch in self.branches.of_example(data.examples[example], reason=self.reasons):
                branches.append(branch)
                owners.append(example)
        return [AskedImage((item.source, image), *found) for image, found in by_image.items()]

    def counts(self, item: Item) -> Counter[str]:
        """How many answers, pairs, names, cells of an item enter each term of the loss."""
        counts: Counter[str] = Counter({"pairs": len(self.pairs(item)[0])})
        for asked in self.asked(item):
            names = [branch.targets[branch.kinds == NAME] for branch in asked.branches]
            for branch in asked.branches:
                for kind, number in zip(*np.unique(branch.kinds[branch.kinds != NAME], return_counts=True)):
                    counts[term_of(int(kind), item.kind)] += int(number)
            if item.source >= 0 and any(map(len, names)):
                present = names_in(self.data.sets[item.source], asked.image[1])
                counts["names"] += 0 if present is None else sum(int((~np.isnan(present[n])).sum()) for n in names)
            if item.source >= 0 and self.cells:
                cells = self.data.sets[item.source].cells.get(asked.image[1])
                counts["cells"] += 0 if cells is None else int((cells[..., 0] != UNKNOWN).sum())
        return counts

    def pairs(self, item: Item) -> tuple[np.ndarray, np.ndarray]:
        """(p, 3) better example, worse example, question; (p,) differences of their labels.

        All pairs of ranked examples with different labels, for outcome and potential, never for clarity.
        """
        found, gaps = [np.empty((0, 3), dtype=np.int64)], [np.empty(0)]
        for members in item.ranked:
            examples = np.asarray(members)
            for question in (QUESTIONS.index("outcome"), QUESTIONS.index("potential")):
                label = self.data.sets[item.source].labels[examples, question]
                gap = label[:, None] - label[None, :]
                better, worse = np.nonzero(gap > 0)  # NaN compares as False
                found.append(np.stack([examples[better], examples[worse], np.full(len(better), question)], axis=1))
                gaps.append(gap[better, worse])
        return np.concatenate(found), np.concatenate(gaps)

    def _draw_group(self, rng: np.random.Generator) -> Item:
        """Paths of one prompt: final images, and previews of the same steps; or previews at unknown steps."""
        source = int(rng.choice(len(self.data.sets), p=self._group_weights))
        tasks = self._tasks[source]
        prompts = tasks[int(rng.integers(len(tasks)))]
        paths = list(prompts[int(rng.integers(len(prompts)))].values())
        chosen = [paths[i] for i in rng.permutation(len(paths))[: self.settings.paths]]
        last = max(chosen[0])
        steps = sorted(set.intersection(*(set(path) for path in chosen)) - {last})
        steps = [steps[i] for i in rng.permutation(len(steps))[: self.settings.previews]]
        by_step = {step: tuple(path[step] for path in chosen if step in path) for step in (*steps, last)}
        examples = tuple(example for members in by_step.values() for example in members)
        return Item("group", source, examples, tuple(m for step, m in by_step.items() if step != UNKNOWN_STEP))

    def _draw_contrast(self, rng: np.random.Generator) -> Item:
        source = int(rng.choice(len(self.data.sets), p=self._contrast_weights))
        contrasts = self._contrasts[source]
        return Item("contrast", source, tuple(contrasts[int(rng.integers(len(contrasts)))]))


def names_in(data: JudgeSet, image: int) -> np.ndarray | None:
    """(names,) in the order of the planes: 1 for a name that is in the image, 0 or NaN for one that is not.

    NaN where some cells are unknown, as it may be there. None for an image without cells.
    """
    cells = data.cells.get(image)
    if cells is None:
        return None
    flags = []
    for plane, names in enumerate(data.cell_names.values()):
        shown = cells[..., plane]
        here = np.full(len(names) + 1, np.nan if (shown == UNKNOWN).any() else 0, dtype=np.float32)
        here[shown[shown != UNKNOWN]] = 1
        flags.append(here[1:])
    return np.concatenate(flags)


def term_of(kind: int, item_kind: str) -> str:
    """The term of the loss that a supervised position enters: that of its kind, but `scenes` for drawn scenes."""
    name = _TERMS[kind]
    return "scenes" if name == "outcome" and item_kind == "contrast" else name


def _probabilities(weights: Sequence[float], has: Sequence[bool]) -> np.ndarray | None:
    """How often each data set is drawn from; None when none has what is wanted."""
    chosen = np.array([weight * there for weight, there in zip(weights, has, strict=True)], dtype=np.float64)
    return chosen / chosen.sum() if chosen.sum() > 0 else None
