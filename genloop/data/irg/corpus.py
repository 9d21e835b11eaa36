"""The traces of one split of a corpus, by position: a run of build_irg, or a folder of shards."""

from collections.abc import Iterator
from pathlib import Path

from genloop.data.irg.record import Record, parse_record
from genloop.data.shards import Fields, Shards


def shard_folder(source: Path, split: str) -> Path:
    """Where a corpus keeps the shards of a split; `source` itself where it has no folder of that name."""
    places = [source / "shards" / split, source / split, source / "shards", source]
    return next((place for place in places if any(place.glob("*.tar"))), source)


class Corpus:
    """Reads traces on demand; errors of `Shards`, ValueError when the split is empty."""

    def __init__(self, source: Path, split: str) -> None:
        folder = shard_folder(source, split)
        if folder.is_dir() and not any(folder.glob("*.tar")):
            raise FileNotFoundError(
                f"{source}: no shards of the split {split!r}; name a run of build_irg that has some"
            )
        self.shards = Shards(folder)
        self.places = [place for place in range(len(self.shards)) if self._record(place).split == split]
        if not self.places:
            raise ValueError(f"{source}: no trace of the split {split!r}")

    def __len__(self) -> int:
        return len(self.places)

    def __iter__(self) -> Iterator[Record]:
        return (self._record(place) for place in self.places)

    def __getitem__(self, number: int) -> tuple[Record, Fields]:
        """A trace and the fields of its sample."""
        sample = self.shards.read(self.places[number])
        return parse_record(sample.fields["json"], sample.name), sample.fields

    def _record(self, place: int) -> Record:
        sample = self.shards.read(place, ("json",))
        return parse_record(sample.fields.get("json", b"{}"), sample.name)
