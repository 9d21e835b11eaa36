"""A judge's examples as arrays: which images, under which sentences, with which labels, grouped to batch.

Opening a set reads the json of every sample once and keeps numbers, about 100 bytes an example. Prompts, cells and
pixels are read from the shards when they are asked for. Equal images are one image, by the digests in the index of
their shard, so that a model looks once at an image that several questions are about. E = examples, I = images.
"""

import functools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from genloop.data.image_reader import sample_pixels
from genloop.data.judge.examples import QUESTIONS, UNKNOWN_STEP, JudgeExample, from_sample, read_cells
from genloop.data.shards import Shards
from genloop.data.tar_index import digest_of

PATHS = ("generate", "conversations")  # sources of images that somebody generated
_HASHED = 1 << 28  # bytes of images that are hashed at the start where an index has no digests
_KEPT = 1 << 14  # examples and cells that are kept once they were read
_COLUMNS = ("source", "tag", "text", "index", "sample", "candidate", "step")
Path_ = tuple[int, int, int]  # (prompt_index, sample, candidate)


class Groups(Sequence[Any]):
    """Groups in the order of their first rows; `groups[i]` is `view` of the rows of one, in their order."""

    def __init__(self, rows: np.ndarray, labels: np.ndarray, view: Callable[[list[int]], Any] = list) -> None:
        """rows (R,) ascending, labels (R,): equal ones are one group."""
        order = by_first(labels)
        self._rows = rows[np.argsort(order, kind="stable")]
        self._ends = np.cumsum(np.bincount(order)) if len(rows) else np.empty(0, np.int64)
        self._view = view

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, group: Any) -> Any:
        group = range(len(self))[group]  # IndexError when there is no such group
        start = self._ends[group - 1] if group else 0
        return self._view(self._rows[start : self._ends[group]].tolist())


def by_first(labels: np.ndarray) -> np.ndarray:
    """(R,) -> (R,) numbers of the distinct labels, counted in the order in which they come up."""
    _, firsts, inverse = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(len(firsts), np.int64)
    rank[np.argsort(firsts)] = np.arange(len(firsts))
    return rank[inverse]


class Examples(Sequence[JudgeExample]):
    """The examples of a set of shards, read when they are asked for."""

    def __init__(self, shards: Shards) -> None:
        self.__setstate__(shards)

    def __getstate__(self) -> Shards:
        return self.shards

    def __setstate__(self, shards: Shards) -> None:
        self.shards = shards
        self._read = functools.lru_cache(_KEPT)(lambda row: from_sample(shards.read(row, ("json",))))

    def __len__(self) -> int:
        return len(self.shards)

    def __getitem__(self, row: Any) -> Any:
        return self._read(range(len(self))[row])


class StoredImages(Sequence[np.ndarray]):
    """Images by number, (H, W, 3) uint8 each, decoded when they are asked for. `rows` (I,): a sample that has it."""

    def __init__(self, shards: Shards, rows: np.ndarray) -> None:
        self.shards, self.rows = shards, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, image: Any) -> Any:
        return sample_pixels(self.shards.read(int(self.rows[image]), ("png",)))


class StoredCells(Mapping[int, np.ndarray]):
    """Image -> its cells, read when they are asked for. `rows` (I,): a sample that has them, -1 where none has."""

    def __init__(self, shards: Shards, rows: np.ndarray) -> None:
        self.__setstate__((shards, rows))

    def __getstate__(self) -> tuple[Shards, np.ndarray]:
        return self.shards, self.rows

    def __setstate__(self, state: tuple[Shards, np.ndarray]) -> None:
        self.shards, self.rows = state
        self._read = functools.lru_cache(_KEPT)(lambda row: read_cells(self.shards.read(row, ("cells.npy",))))

    def __len__(self) -> int:
        return int((self.rows >= 0).sum())

    def __iter__(self) -> Iterator[int]:
        return iter(np.flatnonzero(self.rows >= 0).tolist())

    def __getitem__(self, image: int) -> np.ndarray:
        row = int(self.rows[image]) if 0 <= image < len(self.rows) else -1
        if row < 0:
            raise KeyError(image)
        cells = self._read(row)
        assert cells is not None
        return cells


@dataclass
class JudgeSet:
    """One side of the split of one data set. `labels` (E, 3) in the order of QUESTIONS, NaN where not asked."""

    examples: Sequence[JudgeExample]
    labels: np.ndarray
    image_of: np.ndarray  # (E,) number in `images`
    images: StoredImages
    cells: Mapping[int, np.ndarray]  # image -> (rows, columns, 2) indices into the names + 1, 0 for background
    cell_names: dict[str, list[str]]
    columns: dict[str, np.ndarray]  # (E,) integers each: source, tag and text as numbers, and what tells paths apart
    sources: list[str]  # by their numbers

    def __len__(self) -> int:
        return len(self.examples)

    def pixels(self, row: int) -> np.ndarray:
        """The image of an example, (H, W, 3) uint8."""
        return self.images[self.image_of[row]]

    def tasks(self, *, unknown_steps: bool = True) -> list[Groups]:
        """For each task its sentences; a sentence is a dict of paths, {path: {step: example}}. Drawn scenes have none.

        An image of a conversation is a path of one step. Previews at unknown steps are apart from others, or left out.
        """
        rows, is_unknown = self._rows_from(PATHS), self.columns["step"] == UNKNOWN_STEP
        sentences, tags = 2 * self.columns["text"] + is_unknown, by_first(self.columns["tag"][rows])
        tasks = [rows[tags == tag] for tag in range(tags.max(initial=-1) + 1)]
        kept = [task if unknown_steps else task[~is_unknown[task]] for task in tasks]
        return [Groups(task, sentences[task], self._paths) for task in kept if len(task)]

    def contrasts(self) -> Sequence[list[int]]:
        """The examples of each contrast of drawn scenes."""
        rows = np.flatnonzero(
            self.columns["source"] == (self.sources.index("scenes") if "scenes" in self.sources else -1)
        )
        return Groups(rows, self.columns["index"][rows])

    def _rows_from(self, sources: Collection[str]) -> np.ndarray:
        numbers = [number for number, source in enumerate(self.sources) if source in sources]
        return np.flatnonzero(np.isin(self.columns["source"], numbers))

    def _paths(self, rows: Sequence[int]) -> dict[Path_, dict[int, int]]:
        found: dict[Path_, dict[int, int]] = {}
        for row in rows:
            index, sample, candidate, step = (int(self.columns[name][row]) for name in _COLUMNS[3:])
            found.setdefault((index, sample, candidate), {})[step] = row
        return found


def read_judge_set(source: Path | Shards) -> JudgeSet:
    """All examples of a folder of shards. ValueError names a sample that is no example."""
    shards = source if isinstance(source, Shards) else Shards(source)
    sizes = shards.column("png")["size"]
    if (sizes < 0).any():
        sample = shards[int((sizes < 0).argmax())]
        raise ValueError(f"{sample.name} has {', '.join(sample.fields)}; a judge's example needs png and json")
    labels = np.full((len(shards), len(QUESTIONS)), np.nan)
    columns = {name: np.empty(len(shards), np.int64) for name in _COLUMNS}
    has_names = np.zeros(len(shards), bool)
    sources, tags, texts = _Numbers(), _Numbers(), _Numbers()
    names: dict[str, list[str]] = {}
    shared: dict[str, Any] = {}
    for row in range(len(shards)):
        example = from_sample(shards.read(row, ("json",)), shared)
        prompt = example.prompt
        numbers = sources[example.source], tags[prompt.tag or ""], texts[prompt.text], prompt.index
        for name, value in zip(_COLUMNS, (*numbers, example.sample, example.candidate, example.step), strict=True):
            columns[name][row] = value
        for number, question in enumerate(QUESTIONS):
            labels[row, number] = example.questions.get(question, np.nan)
        if example.cells is not None:
            names, has_names[row] = _same_names(names, example), True
    image_of = by_first(_digests(shards))
    first_rows = np.unique(image_of, return_index=True)[1]
    return JudgeSet(
        Examples(shards),
        labels,
        image_of,
        StoredImages(shards, first_rows),
        StoredCells(shards, _cell_rows(image_of, has_names & (shards.column("cells.npy")["size"] >= 0))),
        names,
        columns,
        list(sources),
    )


def holds(source: Path | Shards, sources: Collection[str]) -> bool:
    """Whether any example of a set of shards is of these sources; reads no further than the first."""
    shards = source if isinstance(source, Shards) else Shards(source)
    return any(example.source in sources for example in Examples(shards))


class _Numbers(dict[str, int]):
    """Texts numbered as they come up."""

    def __missing__(self, text: str) -> int:
        return self.setdefault(text, len(self))


def _digests(shards: Shards) -> np.ndarray:
    """(E,) a number for each image, equal for equal ones; large sets without digests count each image by itself."""
    column = shards.column("png")
    found, unknown = column["digest"].copy(), np.flatnonzero(column["digest"] == 0)
    is_hashed = column["size"][unknown].sum() <= _HASHED
    for row in unknown.tolist():
        found[row] = digest_of(shards.read(row, ("png",)).fields["png"]) if is_hashed else -1 - row
    return found


def _cell_rows(image_of: np.ndarray, has_cells: np.ndarray) -> np.ndarray:
    """(I,) the first sample of each image that has cells, else -1."""
    found = np.full(image_of.max(initial=-1) + 1, -1)
    rows = np.flatnonzero(has_cells)[::-1]
    found[image_of[rows]] = rows  # the last one written is the first sample
    return found


def _same_names(names: dict[str, list[str]], example: JudgeExample) -> dict[str, list[str]]:
    assert example.cells is not None
    if names and names != example.cells:
        raise ValueError(f"sample {example.key}: other names of cells than the samples before it; train on one world")
    return names or {name: list(values) for name, values in example.cells.items()}
