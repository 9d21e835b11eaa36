"""The batch of a step of judge training: a function of (seed, step) and the data alone.

A batch is made of items that stay together, on one rank and in one forward pass: a group (some paths of one sentence,
each with its final image and previews of the same random steps, so that they can be ranked; or previews at steps that
nobody knows, which are not), a contrast (two drawn scenes, two sentences), or a conversation. Tasks are drawn in equal
shares, then a sentence, then its paths.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from genloop.data.judge.conversations import Conversation
from genloop.data.judge.dataset import JudgeSet, Path_
from genloop.data.judge.examples import QUESTIONS, UNKNOWN, UNKNOWN_STEP
from genloop.training.objectives.judge.branches import NAME, Branch, Branches
from genloop.training.settings import BatchSettings

_KIND_NAMES = (*QUESTIONS, "reason", "words", "names")  # by the number of a read's kind


@dataclass(frozen=True, eq=False)
class Asked:
    """One image of an item: a branch for each of `examples`, which says whose labels count (-1: a conversation)."""

    image: tuple[int, int]  # (data set, image); data set -1: of a conversation
    branches: Sequence[Branch]
    examples: Sequence[int]


@dataclass(frozen=True, eq=False)
class Item:
    """What stays together. `pairs` (p, 3): better example, worse example, question; `gaps` (p,) of their labels."""

    source: int  # data set, -1 for a conversation
    kind: str  # group, contrast, conversation
    asked: Sequence[Asked]
    pairs: np.ndarray
    gaps: np.ndarray


@dataclass(frozen=True, eq=False)
class JudgeBatch:
    """The items of a step and how many answers, pairs, names, cells there are of each kind in all of them."""

    items: Sequence[Item]
    totals: Counter[str]


class JudgeBatches:
    """`batches(step)` draws the items of a step from several data sets, each as often as its weight says."""

    def __init__(
        self,
        sets: Sequence[JudgeSet],
        weights: Sequence[float],
        conversations: Sequence[Conversation],
        branches: Branches,
        settings: BatchSettings,
        *,
        seed: int,
        reasons: bool,
    ) -> None:
        self.sets, self.conversations, self.branches = sets, conversations, branches
        self.settings, self.seed, self.reasons = settings, seed, reasons
        self._tasks = [self._sentences(s) for s in sets]
        self._contrasts = [s.contrasts() for s in sets]
        self._group_shares = _shares(weights, [bool(tasks) for tasks in self._tasks])
        self._contrast_shares = _shares(weights, [bool(contrasts) for contrasts in self._contrasts])
        self._check()

    def __call__(self, step: int) -> JudgeBatch:
        rng = np.random.default_rng([self.seed, 1, step])
        items = [self._group(rng) for _ in range(self.settings.groups)]
        items += [self._contrast(rng) for _ in range(self.settings.scenes // 2)]
        items += [self._conversation(rng) for _ in range(self.settings.conversations)]
        totals: Counter[str] = Counter()
        for item in items:
            totals.update(self._count(item))
        return JudgeBatch(items, totals)

    def _check(self) -> None:
        wanted = (
            ("groups", self.settings.groups, self._group_shares is not None, "images of generate or of conversations"),
            ("scenes", self.settings.scenes, self._contrast_shares is not None, "drawn scenes"),
            ("conversations", self.settings.conversations, bool(self.conversations), "conversations"),
        )
        for key, number, there, what in wanted:
            if number and not there:
                raise ValueError(f"batch.{key}: {number} in a batch, but the data has no {what}; set batch.{key}=0")

    def _sentences(self, data: JudgeSet) -> list[list[dict[Path_, dict[int, int]]]]:
        """The paths of every sentence of every task; without previews, also without those at unknown steps."""
        tasks = [
            [paths for (_, is_unknown), paths in sentences.items() if self.settings.previews or not is_unknown]
            for sentences in data.by_path().values()
        ]
        return [sentences for sentences in tasks if sentences]

    def _group(self, rng: np.random.Generator) -> Item:
        """Some paths of one sentence: final images, and previews of the same steps; or previews at unknown steps."""
        source = int(rng.choice(len(self.sets), p=self._group_shares))
        tasks = self._tasks[source]
        sentences = tasks[rng.integers(len(tasks))]
        paths = list(sentences[rng.integers(len(sentences))].values())
        chosen = [paths[i] for i in rng.permutation(len(paths))[: self.settings.paths]]
        last = max(chosen[0])
        steps = sorted(set.intersection(*(set(path) for path in chosen)) - {last})
        steps = [steps[i] for i in rng.permutation(len(steps))[: self.settings.previews]]
        examples = {step: [path[step] for path in chosen if step in path] for step in (*steps, last)}
        ranked = [rows for step, rows in examples.items() if step != UNKNOWN_STEP]
        return self._item(source, "group", [row for rows in examples.values() for row in rows], ranked)

    def _contrast(self, rng: np.random.Generator) -> Item:
        source = int(rng.choice(len(self.sets), p=self._contrast_shares))
        contrasts = self._contrasts[source]
        return self._item(source, "contrast", contrasts[rng.integers(len(contrasts))], [])

    def _conversation(self, rng: np.random.Generator) -> Item:
        number = int(rng.integers(len(self.conversations)))
        branch = self.branches.conversation(self.conversations[number].turns)
        asked = [Asked((-1, number), [branch], [-1])]
        return Item(-1, "conversation", asked, np.empty((0, 3), dtype=np.int64), np.empty(0))

    def _item(self, source: int, kind: str, examples: Sequence[int], ranked: Sequence[Sequence[int]]) -> Item:
        data = self.sets[source]
        by_image: dict[int, tuple[list[Branch], list[int]]] = {}
        for example in examples:
            branches, owners = by_image.setdefault(int(data.image_of[example]), ([], []))
            for branch in self.branches.of(data.examples[example], reason=self.reasons):
                branches.append(branch)
                owners.append(example)
        asked = [Asked((source, image), branches, owners) for image, (branches, owners) in by_image.items()]
        return Item(source, kind, asked, *_pairs(data.labels, ranked))

    def _count(self, item: Item) -> Counter[str]:
        counts: Counter[str] = Counter({"pairs": len(item.pairs)})
        for asked in item.asked:
            data = None if item.source < 0 else self.sets[item.source]
            cells = None if data is None else data.cells.get(asked.image[1])
            names = None if data is None else names_in(data, asked.image[1])
            counts["cells"] += 0 if cells is None else int((cells[..., 0] != UNKNOWN).sum())
            for branch in asked.branches:
                for kind, number in zip(*np.unique(branch.kinds[branch.kinds != NAME], return_counts=True)):
                    counts[term(int(kind), item.kind)] += int(number)
                if names is not None:
                    known = ~np.isnan(names[branch.targets[branch.kinds == NAME]])
                    counts["names"] += int(known.sum())
        return counts


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


def term(kind: int, item_kind: str) -> str:
    """The name of the loss that a read counts for: that of its kind, but `scenes` for outcomes of drawn scenes."""
    name = _KIND_NAMES[kind]
    return "scenes" if name == "outcome" and item_kind == "contrast" else name


def _pairs(labels: np.ndarray, ranked: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Examples that stand side by side -> all pairs with different labels: outcome and potential, never clarity."""
    found, gaps = [], []
    for rows in ranked:
        for question in (QUESTIONS.index("outcome"), QUESTIONS.index("potential")):
            label = labels[list(rows), question]
            gap = label[:, None] - label[None, :]
            better, worse = np.nonzero(gap > 0)  # NaN compares as False
            examples = np.asarray(rows)
            found.append(np.stack([examples[better], examples[worse], np.full(len(better), question)], axis=1))
            gaps.append(gap[better, worse])
    if not found:
        return np.empty((0, 3), dtype=np.int64), np.empty(0)
    return np.concatenate(found), np.concatenate(gaps)


def _shares(weights: Sequence[float], has: Sequence[bool]) -> np.ndarray | None:
    """How often each data set is drawn from; None when no set has what is wanted."""
    shares = np.array([weight * there for weight, there in zip(weights, has, strict=True)], dtype=np.float64)
    return shares / shares.sum() if shares.sum() > 0 else None
