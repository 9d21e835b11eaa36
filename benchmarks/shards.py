"""Start time and memory of a process that opens a million samples: python benchmarks/shards.py [--tree FOLDER]

Makes sets of 1,000,000 samples with three fields in 250 shards, then opens each in a new process and reads 10,000
samples of its first 65,536 (a block of the training order). The tars are holes: what is measured is the index, of
schema 2 (arrays) and of schema 1 (JSON). `--tree` measures another checkout, which may read schema 1 only
(--schemas 1).
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from genloop.environment import cpu_model

SAMPLES, SHARD, FIELDS, SIZE = 1_000_000, 4_000, ("codes.npy", "json", "txt"), 600
MEASURE = """
import json, resource, sys, time
from pathlib import Path
import numpy as np
from genloop.data.shards import Shards
before = time.process_time()
shards = Shards(Path(sys.argv[1]))
opened, peak = time.process_time() - before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
rows = np.random.default_rng(0).integers(1 << 16, size=10_000).tolist()
before = time.process_time()
for row in rows:
    shards[row]
read, after = time.process_time() - before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([len(shards), opened, peak / 1024, read / len(rows) * 1e6, after / 1024]))
"""


def make_set(folder: Path, schema: int) -> None:
    """Indices of both schemas describe the same tars."""
    folder.mkdir()
    for number in range(SAMPLES // SHARD):
        tar = folder / f"{number:05d}.tar"
        offsets = 512 + 1536 * np.arange(SHARD * len(FIELDS)).reshape(SHARD, -1)
        tar.touch()
        os.truncate(tar, int(offsets.max()) + 20_480)
        keys = [f"{number * SHARD + row:09d}" for row in range(SHARD)]
        head = {"schema": schema, "bytes": tar.stat().st_size, "sha256": "0" * 64}
        if schema == 1:
            samples = [
                [key, {f: [o, SIZE] for f, o in zip(FIELDS, row, strict=True)}]
                for key, row in zip(keys, offsets.tolist(), strict=True)
            ]
            content = head | {"samples": samples}
        else:
            place = np.dtype([("offset", "<i8"), ("size", "<i8"), ("digest", "<i8")])
            table = np.zeros(SHARD, dtype=[("__key__", "S9"), *((field, place) for field in FIELDS)])
            table["__key__"] = keys
            for column, field in enumerate(FIELDS):
                table[field]["offset"], table[field]["size"] = offsets[:, column], SIZE
            np.save(tar.with_suffix(".index.npy"), table)
            content = head | {"samples": SHARD, "fields": FIELDS}
        tar.with_suffix(".index.json").write_text(json.dumps(content, separators=(",", ":")) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--tree", default=str(Path(__file__).resolve().parents[1]), help="checkout whose code is measured"
    )
    parser.add_argument("--schemas", type=int, nargs="+", default=[2, 1])
    arguments = parser.parse_args()
    print(f"{cpu_model()}, {os.cpu_count()} cores; Python {platform.python_version()}, numpy {np.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        for schema in arguments.schemas:
            make_set(Path(folder) / str(schema), schema)
            command = [sys.executable, "-c", MEASURE, str(Path(folder) / str(schema))]
            environment = os.environ | {"PYTHONPATH": arguments.tree}
            found = json.loads(
                subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, cwd=arguments.tree).stdout
            )
            samples, opened, peak, read, after = found
            print(
                f"schema {schema}: {samples} samples opened in {opened:.2f} CPU-seconds, peak {peak:.0f} MiB; "
                f"{read:.0f} us a read, peak {after:.0f} MiB after 10,000 reads"
            )


if __name__ == "__main__":
    main()
