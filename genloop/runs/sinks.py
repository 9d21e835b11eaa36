"""Where `generate` puts the images of a unit: a folder in GenEval's layout, or one WebDataset shard a unit.

    format=folder   RUN/images/00017/samples/0000.png, and RUN/images/00017/metadata.jsonl
    format=shards   RUN/shards/00002.tar with samples 00017_0000: png, txt (the prompt), json (all that made the image);
                    its row calls the image shards/00002.tar/00017_0000.png, as genloop/data/members.py reads it

The png is the same in both. A shard's bytes depend on the config alone: not on workers, kills, or what was done before.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Literal

from genloop.data.shards import Sample, write_shard
from genloop.ledger import Ledger
from genloop.reading import parse_json
from genloop.records import Prompt, Unit
from genloop.runs.provenance import image_chunk, keys_below, regime_of
from genloop.runs.rows import GeneratedRow

Format = Literal["folder", "shards"]


class ImageSink(ABC):
    """The images of one unit of the run with this fingerprint."""

    def __init__(self, ledger: Ledger, unit: Unit, fingerprint: Mapping[str, Any]) -> None:
        self.ledger, self.unit, self.regime = ledger, unit, regime_of(fingerprint)
        self.generator = keys_below(fingerprint.get("keys", {}), "generator.")

    @abstractmethod
    def place(self, prompt_index: int, sample: int) -> str:
        """What a row calls an image, below the run folder."""

    @abstractmethod
    def put(self, prompt: Prompt, row: GeneratedRow, png: bytes) -> None:
        """Keep an image; `row` is complete but for its previews. LeaseLost as in `Ledger.write`."""

    @abstractmethod
    def close(self) -> None:
        """All images of the unit are there."""


class FolderSink(ImageSink):
    """A file an image."""

    def place(self, prompt_index: int, sample: int) -> str:
        return f"images/{prompt_index:05d}/samples/{sample:04d}.png"

    def put(self, prompt: Prompt, row: GeneratedRow, png: bytes) -> None:
        path = self.ledger.run / row.image
        if row.sample == 0:
            metadata = (json.dumps(prompt.metadata()) + "\n").encode()
            self.ledger.write(path.parent.parent / "metadata.jsonl", metadata)
        self.ledger.write(path, png)

    def close(self) -> None:
        pass


class ShardSink(ImageSink):
    """A sample an image; they are held in memory until the unit is through."""

    def __init__(self, ledger: Ledger, unit: Unit, fingerprint: Mapping[str, Any]) -> None:
        super().__init__(ledger, unit, fingerprint)
        self._samples: list[Sample] = []

    def place(self, prompt_index: int, sample: int) -> str:
        return f"shards/{self.unit.name}.tar/{_key(prompt_index, sample)}.png"

    def put(self, prompt: Prompt, row: GeneratedRow, png: bytes) -> None:
        best = next(one for one in row.candidates if one.candidate == row.chosen)
        made = {
            **parse_json(image_chunk(self.regime, row)),
            "generator": self.generator,
            "metadata": prompt.metadata(),
            "candidate": row.chosen,  # with seed, prompt_index and sample the key of its noise
            "num_steps": row.num_steps,
            "scores": best.p_yes,
            "cost": row.cost.to_json(),
            "sha256": row.sha256,
        }
        text = json.dumps(made, ensure_ascii=False, separators=(",", ":"))
        fields = {"png": png, "txt": prompt.text.encode(), "json": text.encode()}
        self._samples.append(Sample(_key(prompt.index, row.sample), fields))

    def close(self) -> None:
        path = self.ledger.run / "shards" / f"{self.unit.name}.tar"
        index = write_shard(path, self._samples, staging=self.ledger.staging, ready=self.ledger.check_lease)
        assert index.sha256 is not None, "a shard that was just written has its sha256"
        self.ledger.record(path, index.sha256)


SINKS: dict[Format, type[ImageSink]] = {"folder": FolderSink, "shards": ShardSink}


def _key(prompt_index: int, sample: int) -> str:
    return f"{prompt_index:05d}_{sample:04d}"
