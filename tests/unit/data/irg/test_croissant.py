"""The metadata of a corpus is valid Croissant 1.1, and its reader finds the traces."""

import json

from genloop.data.irg.croissant import croissant
from genloop.data.irg.record import parse_record
from genloop.data.shards import write_shard
from genloop.registry import require
from tests.worlds.traces import trace


def test_mlcroissant_takes_the_metadata_and_reads_the_traces(tmp_path):
    rows = []
    for split in ("train", "test"):
        samples = [trace(kind, seed, split).sample for seed, kind in enumerate(("dark", "clean"))]
        index = write_shard(tmp_path / "shards" / split / "00000.tar", samples)
        rows.append({"shard": f"{split}/00000.tar", "bytes": index.num_bytes, "sha256": index.sha256})
    made = croissant("tiny", license="CC0-1.0", shards=rows, source="Drawn scenes.", sensitive="None.")
    assert made == croissant("tiny", license="CC0-1.0", shards=rows[::-1], source="Drawn scenes.", sensitive="None.")
    path = tmp_path / "croissant.json"
    path.write_text(json.dumps(made))
    dataset = require("mlcroissant").Dataset(jsonld=path)
    assert not dataset.metadata.ctx.issues.errors
    assert dataset.metadata.ctx.is_v1_1() and dataset.metadata.data_limitations
    assert sum(key.startswith("rai:") for key in made) >= 18
    found = list(dataset.records("traces"))
    splits = {parse_record(row["traces/trace"]).split for row in found}
    assert splits == {"train", "test"} and len(found) == 4
    assert {row["traces/id"] for row in found} == {b"dark-00000", b"clean-00001"}
