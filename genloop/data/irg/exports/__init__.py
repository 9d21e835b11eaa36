"""Other formats of traces, written and read: a table of names, and what each of them cannot hold.

A format writes the samples of a unit through `UnitFiles` and reads a folder as a sequence of samples of this suite.
What it cannot hold is measured again (features), read from the texts, or lost; LOST says which.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from genloop.data.shards import Sample
from genloop.registry import lookup

FORMATS = {
    "shards": "genloop.data.irg.exports.own:Own",
    "genref": "genloop.data.irg.exports.genref:GenRef",
    "irg": "genloop.data.irg.exports.interleaved:Interleaved",
    "verl": "genloop.data.irg.exports.trajectories:Trajectories",
    "chat": "genloop.data.irg.exports.chats:ChatLines",
    "csv": "genloop.data.irg.exports.tables:Tables",
}
LOST = {  # format -> what of a trace does not come back
    "shards": (),
    "genref": (
        "exact pixels and so features",
        "scene",
        "injected",
        "gain",
        "messages",
        "undone rounds",
        "clean traces",
    ),
    "irg": ("scene", "injected", "gain", "messages", "undone rounds"),
    "verl": ("scene", "injected", "gain", "messages", "reasoning_text of the trace", "undone rounds"),
    "chat": ("scene", "injected", "gain", "reasoning_text of the trace", "undone rounds", "last result"),
    "csv": ("scene", "injected", "gain", "messages", "generator", "provenance"),
}


class UnitFiles(Protocol):
    """Where a unit's files go."""

    def file(self, name: str, data: bytes) -> None:
        """A whole file, by its path below the run folder."""

    def shard(self, samples: Sequence[tuple[str, Sample]]) -> None:
        """(split, sample) pairs, for the unit's shards."""


class Format(Protocol):
    """One way to store traces."""

    def write(self, unit: str, samples: Sequence[Sample], sink: UnitFiles) -> list[str]:
        """Write the samples of a unit -> the keys of those that the format cannot hold at all."""

    def read(self, source: Path) -> Sequence[Sample]:
        """The traces of a folder; FileNotFoundError or ValueError in one line that names file and line.

        Getting one raises ValueError where its images do not fit.
        """


def format_of(name: str) -> Format:
    """The format behind a name."""
    made: Format = lookup(FORMATS, name, "format")()
    return made
