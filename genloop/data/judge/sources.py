"""Sources of a judge's examples: each is a number of items, and makes the samples of any range of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from genloop.data.image_reader import as_png
from genloop.data.judge.conversation_examples import LabelledFile
from genloop.data.judge.examples import split_of, to_sample
from genloop.data.shards import Sample
from genloop.job import note
from genloop.ledger import plan_units
from genloop.reading import read_bytes
from genloop.records import Unit

Samples = Iterator[tuple[str, Sample]]  # (split, sample)


class Source(Protocol):
    """Where examples come from. Items are what units are cut from: prompts, pairs of scenes, conversations."""

    @property
    def num_items(self) -> int:
        """How many items there are."""

    @property
    def unit_size(self) -> int:
        """Items in a unit."""

    def samples(self, items: range) -> Samples:
        """(split, sample) of every example of these items."""


@dataclass(frozen=True, slots=True)
class SourcePlan:
    """The units of all sources, one source after another; items are numbered through."""

    sources: Sequence[Source]

    def units(self) -> list[Unit]:
        """The units in order."""
        spans: list[tuple[int, int]] = []
        for first, source in self._placed():
            spans += [(first + u.start, first + u.stop) for u in plan_units(source.num_items, source.unit_size)]
        width = max(5, len(str(len(spans) - 1)))
        return [Unit(f"{number:0{width}d}", *span) for number, span in enumerate(spans)]

    def samples(self, unit: Unit) -> Samples:
        """(split, sample) of every example of a unit; it lies within one source."""
        for first, source in self._placed():
            if first <= unit.start < first + source.num_items:
                return source.samples(range(unit.start - first, unit.stop - first))
        raise ValueError(f"unit {unit.name}: no source has item {unit.start}")

    def _placed(self) -> Iterator[tuple[int, Source]]:
        first = 0
        for source in self.sources:
            yield first, source
            first += source.num_items


@dataclass(frozen=True, slots=True)
class ConversationSource:
    """The labelled conversations of a file."""

    labelled: LabelledFile
    seed: int
    val_share: float
    unit_size: int

    @property
    def num_items(self) -> int:
        return len(self.labelled.conversations)

    def samples(self, items: range) -> Samples:
        """Examples of these conversations; an image that cannot be read is named in a note of the error."""
        for one in self.labelled.conversations[items.start : items.stop]:
            with note(f"image {one.said.image} of conversation {one.said.key}"):
                png = as_png(read_bytes(one.said.image))
            for example in one.examples:
                yield split_of(example.prompt.text, self.seed, self.val_share), to_sample(example, png)
