"""The shards of this suite: a copy keeps everything."""

from collections.abc import Sequence
from pathlib import Path

from genloop.data.irg.exports import UnitFiles
from genloop.data.irg.exports.lazy import Read
from genloop.data.irg.exports.looks import record_of
from genloop.data.shards import Sample, Shards, shards_in


def joined(source: Path) -> Read:
    """The samples of all folders of shards at or below one, in the order of their names."""
    below = source / "shards" if (source / "shards").is_dir() else source
    folders = sorted({path.parent for path in below.rglob("*.tar")}) if below.is_dir() else [below]
    if not folders:
        raise FileNotFoundError(f"no shards (*.tar) in {source}; name a folder that holds some")
    shards = Shards([shard for folder in folders for shard in shards_in(folder)])
    return Read(len(shards), shards.read)


class Own:
    """KEY.json, KEY.0.png, ..., KEY.txt"""

    def write(self, unit: str, samples: Sequence[Sample], sink: UnitFiles) -> list[str]:
        """Each sample as it is, in the shard of its split."""
        sink.shard([(record_of(sample).split, sample) for sample in samples])
        return []

    def read(self, source: Path) -> Sequence[Sample]:
        """Of a run, its shards; else all shards at or below a folder."""
        found = joined(source)
        if len(found):
            record_of(found[0])
        return found
