"""The shards of this suite: a copy keeps everything."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import overload

from genloop.data.irg.exports import UnitFiles
from genloop.data.irg.exports.looks import record_of
from genloop.data.shards import Sample, Shards


class Joined(Sequence[Sample]):
    """The samples of all folders of shards at or below one, in the order of their names."""

    def __init__(self, source: Path) -> None:
        below = source / "shards" if (source / "shards").is_dir() else source
        folders = sorted({path.parent for path in below.rglob("*.tar")}) if below.is_dir() else [below]
        if not folders:
            raise FileNotFoundError(f"no shards (*.tar) in {source}; name a folder that holds some")
        self._parts = [Shards(folder) for folder in folders]

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    @overload
    def __getitem__(self, place: int) -> Sample: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Sample]: ...
    def __getitem__(self, place: int | slice) -> Sample | Sequence[Sample]:
        if isinstance(place, slice):
            return [self[number] for number in range(*place.indices(len(self)))]
        for part in self._parts:
            if place < len(part):
                return part[place]
            place -= len(part)
        raise IndexError(place)

    def __iter__(self) -> Iterator[Sample]:
        return (sample for part in self._parts for sample in part)


class Own:
    """KEY.json, KEY.0.png, ..., KEY.txt"""

    def write(self, unit: str, samples: Sequence[Sample], sink: UnitFiles) -> list[str]:
        """Each sample as it is, in the shard of its split."""
        sink.shard([(record_of(sample).split, sample) for sample in samples])
        return []

    def read(self, source: Path) -> Sequence[Sample]:
        """Of a run, its shards; else all shards at or below a folder."""
        found = Joined(source)
        if len(found):
            record_of(found[0])
        return found
