"""Write the traces of build_irg in formats of others, or read those into shards.

    genloop run build_irg tiny && genloop run export_irg tiny
    genloop run export_irg source=runs/irg format=genref out=runs/irg-genref --procs 2
    genloop run export_irg source=runs/irg duplicates=false out=runs/irg-unique
    genloop run export_irg source=data/verl source_format=verl license=Apache-2.0 out=runs/irg-from-verl

Reads   `source`: a run of build_irg or of this job, or a folder in `source_format`; with duplicates=false the list
        of duplicates that build_irg has written there.
Writes  RUN/shards/SPLIT/00000.tar (shards, genref), or RUN/exported/00000.{parquet,jsonl,csv} and
        RUN/images/*.png; RUN/rows/*.jsonl, one line a trace: its key and split, or why it could not be read. When
        all units are done RUN/summary.json.
Resume  the same command; finished units are kept, any number of workers may join or leave. Files depend on the
        config and the source alone.

Formats: shards (of this suite), genref (GenRef-wds of ReflectionFlow), irg (conversations of
Interleaving-Reasoning-Generation, parquet), verl (trajectories of verl-omni's visual_reflection), chat (JSON
lines), csv. What a format cannot hold is lost, and RUN/summary.json names it; of images that are read from
elsewhere features are measured.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from genloop import terminal
from genloop.bounds import Count
from genloop.config import IndependentConfig, InputPath
from genloop.data.shards import Sample, write_sides
from genloop.distributed import World
from genloop.job import run
from genloop.ledger import Ledger, Unit, count, plan_units, rows_of_units
from genloop.meanings import TRACES
from genloop.planning import Workload
from genloop.reading import json_object, parse_json, read_utf8
from genloop.rundir import write_json

if TYPE_CHECKING:
    from genloop.data.irg.exports import Format

KIND = "independent"
_AT_A_TIME = 8  # files that are written
FormatName = Literal["shards", "genref", "irg", "verl", "chat", "csv"]


class Config(IndependentConfig):
    source: InputPath = Field(description=f"{TRACES}, or of another format")
    source_format: FormatName = Field("shards", description="what the source is written in")
    format: FormatName = Field("shards", description="what is written")
    split: Literal["train", "val", "test"] | None = Field(None, description="only traces of this split; null: all")
    duplicates: bool = Field(True, description="false: leave out what SOURCE/duplicates.jsonl lists")
    license: str | None = Field(None, min_length=1, max_length=200, description="of a source that names none")
    unit_size: Count = Field(250, description="traces in one unit of work, which has a file, or a shard for each split")


@dataclass(frozen=True)
class Checked:
    """The traces of the source, and the keys that are left out."""

    samples: Sequence[Sample]
    left_out: frozenset[str]


def check(config: Config) -> Checked:
    """The source is read as far as that needs no images; nothing is written for a bad line."""
    from genloop.data.irg.exports import format_of
    from genloop.data.irg.exports.looks import record_of

    samples = format_of(config.source_format).read(config.source)
    if not len(samples):
        raise ValueError(f"source: {config.source} holds no traces")
    if not (record_of(samples[0]).license or config.license):
        raise ValueError(f"license: {config.source} names none; name that of its images")
    return Checked(samples, _left_out(config))


def _left_out(config: Config) -> frozenset[str]:
    path = config.source / "duplicates.jsonl"
    if config.duplicates:
        return frozenset()
    if not path.is_file():
        raise ValueError(f"duplicates: {path} is not there; false needs the list that build_irg writes")
    rows = [parse_json(line, f"{path}:{number}") for number, line in enumerate(read_utf8(path).splitlines(), 1)]
    return frozenset(row["key"] for row in rows)


def work(config: Config) -> Workload:
    """The traces of the source."""
    from genloop.data.irg.exports import format_of

    total = len(format_of(config.source_format).read(config.source))
    return Workload(min(total, config.limit or total), min(total, config.limit or total))


def main(config: Config, world: World, checked: Checked) -> None:
    from genloop.data.irg.exports import format_of

    target = format_of(config.format)
    units = plan_units(min(len(checked.samples), config.limit or len(checked.samples)), config.unit_size)
    with Ledger.of(config, units, world) as ledger:
        for unit in ledger.claims():
            with ledger.working(unit):
                rows = _export(config, checked, target, unit, ledger)
                ledger.complete(unit, rows)
    if count(config.out, len(units)).done == len(units):
        _conclude(config, rows_of_units(config.out, units, json_object))


def _export(config: Config, checked: Checked, target: "Format", unit: Unit, ledger: Ledger) -> list[dict[str, Any]]:
    """Write the files of a unit -> a row about each trace."""
    from genloop.data.irg.exports.looks import record_of

    rows: list[dict[str, Any]] = []
    kept: list[Sample] = []
    for place in ledger.counted(range(unit.start, unit.stop)):
        try:
            sample = _licensed(checked.samples[place], config.license)
            record = record_of(sample)
        except ValueError as error:
            rows.append({"item": place, "refused": str(error)})
            continue
        why = "duplicate" if record.id in checked.left_out else ""
        why = why or ("" if config.split in (None, record.split) else "split")
        rows.append({"item": place, "key": record.id, "split": record.split, "left_out": why})
        kept += [] if why else [sample]
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        files = _Files(config.out, unit, ledger, pool)
        not_held = set(target.write(unit.name, kept, files))
        files.wait()
    return [row | {"left_out": config.format} if row.get("key") in not_held else row for row in rows]


def _licensed(sample: Sample, license: str | None) -> Sample:
    """With the licence of the config where the source names none; ValueError where nobody does."""
    from genloop.data.irg.exports.looks import record_of

    record = record_of(sample)
    if record.license or license is None:
        return sample
    named = record.model_copy(update={"license": license})
    return Sample(sample.key, {**sample.fields, "json": named.to_json()})


class _Files:
    """The files of a unit, by way of the ledger; several at a time, as each waits until the disk has it."""

    def __init__(self, out: Path, unit: Unit, ledger: Ledger, pool: ThreadPoolExecutor) -> None:
        self._out, self._unit, self._ledger, self._pool = out, unit, ledger, pool
        self._underway: list[Future[None]] = []

    def file(self, name: str, data: bytes) -> None:
        """A whole file below the run folder."""
        self._underway.append(self._pool.submit(self._ledger.write, self._out / name, data))

    def wait(self) -> None:
        """Until all files are there; what the first one that is not raised."""
        for future in self._underway:
            future.result()

    def shard(self, samples: Sequence[tuple[str, Sample]]) -> None:
        """The unit's shard of each split."""
        folder, ledger = self._out / "shards", self._ledger
        for side in write_sides(folder, self._unit.name, samples, staging=ledger.staging, ready=ledger.check_lease):
            ledger.record(folder / side["shard"], side["sha256"])


def _conclude(config: Config, rows: Sequence[Mapping[str, Any]]) -> None:
    """Counts, and what the format does not hold; workers that end together write the same bytes."""
    from genloop.data.irg.exports import LOST

    refused = [row["refused"] for row in rows if "refused" in row]
    written = Counter(row["split"] for row in rows if row.get("left_out") == "")
    names = sorted({*LOST[config.format], *LOST[config.source_format]})
    summary = {
        "format": config.format,
        "traces": len(rows),
        "written": dict(sorted(written.items())),
        "left_out": dict(sorted(Counter(row["left_out"] for row in rows if row.get("left_out")).items())),
        "refused": len(refused),
        "lost": names,
    }
    write_json(config.out / "summary.json", summary)
    lost = f"; lost: {', '.join(names)}" if names else ""
    terminal.out(f"{written.total()} of {len(rows)} traces written as {config.format}{lost}")
    if refused:
        terminal.out(f"{len(refused)} traces could not be read, the first: {refused[0]}")


if __name__ == "__main__":
    run(main, Config)
