"""Judge generated images by GenEval's rules, with error bars.

    genloop run evaluate shapes images=runs/a out=runs/a-verdicts
    genloop run evaluate shapes images=runs/a out=runs/a-verdicts --procs 2
    genloop run evaluate shapes images=runs/a out=runs/a-verdicts format=reference
    genloop run evaluate shapes images=runs/a out=runs/a-verdicts with_masks=true
    genloop run evaluate geneval images=IMAGES out=runs/b expect.prompts=geneval expect.images_per_prompt=4
    genloop run evaluate geneval canary=only out=runs/canary

Reads   an image folder in GenEval's layout (00017/metadata.jsonl, 00017/samples/0000.png; also jpg and webp; with
        layout=final 00017/final.png), or a run of `generate`. What the folder lacks of what is expected is an
        error before work, unless expect.on_missing=report.
Writes  RUN/rows/*.jsonl, one line an image: verdict, reasons, detections. When all units are done
        RUN/summary.json, RUN/summary.txt (also printed) and RUN/card.json: all that decided the result.
        RUN/canary.json: what the detector and the colour classifier answered to pictures whose answers are known,
        before anything was judged.
Resume  the same command; finished units are kept, any number of workers may join or leave. A row depends on its
        image, the detector, the options and `with_masks` alone.

An image that does not decode counts as wrong and is listed. With format=reference the summary is the one that
GenEval's own script prints, and RUN/results.jsonl holds the rows in its form. With with_masks=true rows hold the
masks of the classes that prompts name. canary=record notes the answers beside the checkpoints; only the canary is
run then.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, field_validator

from ckpts.resolve import resolve
from geneval.completeness import Completeness, ExpectSettings, compare
from geneval.folder import Layout, PromptFolder, Sample, read_folders
from geneval.settings import (
    Evaluator,
    EvaluatorKeys,
    build_evaluator,
    check_evaluator,
    evaluator_facts,
    evaluator_inputs,
)
from genloop import terminal
from genloop.bounds import Count, Threads, Total
from genloop.config import LAUNCH, ComputeKeys, IndependentConfig
from genloop.data.image_reader import ImageReader
from genloop.distributed import World, choose_device
from genloop.job import loading, run
from genloop.ledger import Ledger, count, finished, plan_units
from genloop.meanings import DECODERS, IMAGES, INTERVALS
from genloop.planning import Footprint, Workload
from genloop.records import Unit
from genloop.runs.generated import image_folder, units_to_make
from genloop.stats.rates import Kind

if TYPE_CHECKING:
    from genloop.runs.rows import EvaluatedRow

KIND = "independent"
log = logging.getLogger(__name__)


class Config(EvaluatorKeys, ComputeKeys, IndependentConfig):
    images: Annotated[str | None, LAUNCH] = Field(None, description=IMAGES)
    layout: Layout = Field("samples", description="00017/samples/0000.png and more, or one 00017/final.png")
    expect: ExpectSettings = ExpectSettings()
    canary: Annotated[Literal["check", "off", "only", "record"], LAUNCH] = Field(
        "check", description="known pictures before the images; only: nothing else; record: note the answers"
    )
    unknown_classes: Annotated[Literal["refuse", "absent"], LAUNCH] = Field(
        "refuse", description="classes that the detector does not know: an error, or never found (as in GenEval)"
    )
    intervals: Annotated[Kind, LAUNCH] = Field("bootstrap", description=INTERVALS)
    format: Annotated[Literal["genloop", "reference"], LAUNCH] = Field(
        "genloop", description="reference: rows and summary as GenEval's own scripts print them"
    )
    with_masks: bool = Field(False, description="rows keep the masks of the prompts' classes too; decides nothing")
    limit: Total | None = Field(None, description="only the first so many prompt folders")
    unit_size: Count = Field(32, description="images in one unit of work")
    images_per_batch: Annotated[Count, LAUNCH] = Field(8, description="images that are handed on at once")
    decoders: Annotated[Threads, LAUNCH] = Field(4, description=DECODERS)

    @field_validator("images")
    @classmethod
    def _of_a_run(cls, images: str | None) -> str | None:
        """A run folder stands for the images in it."""
        return f"{image_folder(Path(images))}" if images and (Path(images) / "run.json").is_file() else images

    @property
    def has_images(self) -> bool:
        """Whether there is more to do than to run the canary."""
        return self.canary not in ("only", "record")

    @property
    def folder(self) -> Path:
        """Where the images are."""
        return Path(self.images or "")


@dataclass(frozen=True)
class Checked:
    """The prompt folders in order; none when the canary alone is run."""

    folders: Sequence[PromptFolder] = ()


def check(config: Config) -> Checked:
    """Names, layout, every metadata file and completeness, before anything is loaded or written."""
    from geneval.canary.records import check_records
    from geneval.completeness import check_complete
    from geneval.evaluation import check_fit
    from geneval.folder import check_samples

    known = check_evaluator(config, resolve)
    if config.canary != "off":
        check_records(config, resolve)
    if not config.has_images:
        return Checked()
    if not config.images:
        raise ValueError("images: needs a value, unless canary=only")
    classes = known if config.unknown_classes == "refuse" else None
    folders = read_folders(config.folder, classes=classes, limit=config.limit, layout=config.layout)
    check_fit(folders, config.folder, config.detector)
    if config.expect.on_missing == "error" or not any(folder.samples for folder in folders):
        check_samples(config.folder, folders, config.layout)
        check_complete(config.folder, _lacks(config, folders))
    return Checked(folders)


def inputs(config: Config, checked: Checked) -> dict[str, Path]:
    """The images and the weights, whose content enters the fingerprint wherever they lie."""
    return ({"images": config.folder} if config.has_images else {}) | evaluator_inputs(config, resolve)


def work(config: Config) -> Workload:
    """The images of the prompt folders that are there."""
    folders = read_folders(config.folder, limit=config.limit, layout=config.layout) if config.has_images else []
    return Workload(sum(len(folder.samples) for folder in folders), len(folders))


def footprint(config: Config, checked: Checked, *, device: str, ranks: int) -> Footprint:
    """The first images as they are, as many as a detector gets in one call."""
    from geneval.evaluation import judge_samples
    from genloop.models.common.footprint import rehearsal

    samples = [sample for folder in checked.folders for sample in folder.samples][: config.images_per_batch]
    with rehearsal(device) as tracker, ImageReader(config.folder, config.decoders) as reader:
        with tracker.part("detector and colour classifier"):
            evaluator = build_evaluator(config, resolve, "meta")
        reader.start([sample.image for sample in samples])
        pixels = reader.take([sample.image for sample in samples])
        judge_samples(samples, pixels, evaluator, masks=config.with_masks, seen=lambda images: None)
    return Footprint(tracker.parts, tracker.peak - sum(tracker.parts.values()))


def main(config: Config, world: World, checked: Checked) -> None:
    import torch

    torch.set_num_threads(config.threads)
    if not config.has_images:
        _load(config, world)
        return
    samples = [sample for folder in checked.folders for sample in folder.samples]
    units = plan_units(len(samples), config.unit_size)
    with ImageReader(config.folder, config.decoders) as reader, Ledger.of(config, units, world) as ledger:
        evaluator = None
        for unit in ledger.claims():
            evaluator = evaluator or _load(config, world)
            with ledger.working(unit):
                ahead = _names(samples, _next_unit(config.out, units, unit))
                rows = _judge(config, samples[unit.start : unit.stop], evaluator, reader, ahead, ledger)
                ledger.complete(unit, [row.to_json() for row in rows])
    if count(config.out, len(units)).done == len(units):
        _conclude(config, checked.folders, samples, units)


def _lacks(config: Config, folders: Sequence[PromptFolder]) -> Completeness:
    """What the folder lacks, also because it is still being made."""
    found = compare(folders, config.expect, config.limit)
    return replace(found, units_to_make=units_to_make(config.folder))


def _load(config: Config, world: World) -> Evaluator:
    """The detector and the colour classifier, after the canary: pictures whose answers are known."""
    from geneval.canary.check import run_canary
    from geneval.canary.records import parts_of
    from genloop.rundir import read_run, write_json

    with loading():
        device = choose_device(config.device, world)
        evaluator = build_evaluator(config, resolve, device)
    fingerprint = read_run(config.out)
    if config.canary == "off" or fingerprint is None:
        return evaluator
    log.info("canary: known pictures come before the first image")
    parts = parts_of(config, resolve, fingerprint)
    outcomes = run_canary(evaluator, parts, recording=config.canary == "record", seen=lambda _: world.check_stop())
    if not (config.out / "canary.json").exists() or not config.has_images:
        write_json(config.out / "canary.json", {name: outcome.to_json() for name, outcome in outcomes.items()})
    if not config.has_images:
        _tell(config, outcomes, device)
    return evaluator


def _tell(config: Config, outcomes: Any, device: str) -> None:
    """Print what the canary found, and note it beside the checkpoints if that was asked for."""
    from geneval.canary.records import write_record
    from genloop import __version__
    from genloop.environment import package_versions

    for name, outcome in outcomes.items():
        terminal.out(f"{name} {outcome.part.kind}: {outcome.outcome}")
        if config.canary == "record":
            made = {"genloop": __version__, "device": device, "packages": package_versions()}
            path = write_record(outcome.part, outcome.seen, made)
            terminal.out(
                f"{name} {outcome.part.kind}: {f'noted in {path}' if path else 'has no weights to note it for'}"
            )


def _judge(
    config: Config,
    samples: Sequence[Sample],
    evaluator: Evaluator,
    reader: ImageReader,
    ahead: Sequence[str],
    ledger: Ledger,
) -> list["EvaluatedRow"]:
    """The rows of a unit; while its last images are looked at, those `ahead` are decoded."""
    from geneval.evaluation import judge_samples

    def seen(images: int) -> None:
        ledger.advance(images)
        ledger.world.check_stop()

    reader.start([sample.image for sample in samples])
    rows = []
    for start in range(0, len(samples), config.images_per_batch):
        batch = samples[start : start + config.images_per_batch]
        pixels = reader.take([sample.image for sample in batch])
        if start + len(batch) == len(samples):
            reader.go_on(ahead)
        rows += judge_samples(batch, pixels, evaluator, masks=config.with_masks, seen=seen)
    return rows


def _next_unit(out: Path, units: Sequence[Unit], unit: Unit) -> Unit | None:
    """The unit that this worker will probably get next: the first one behind this that nobody has."""
    taken = finished(out) | {lease.name for lease in (out / "leases").iterdir()}
    return next((other for other in units if other.start > unit.start and other.name not in taken), None)


def _names(samples: Sequence[Sample], unit: Unit | None) -> list[str]:
    return [sample.image for sample in samples[unit.start : unit.stop]] if unit else []


def _conclude(
    config: Config, folders: Sequence[PromptFolder], samples: Sequence[Sample], units: Sequence[Unit]
) -> None:
    """Write and print the summary; workers that end together write the same bytes."""
    from geneval.card import remarks, result_card
    from geneval.evaluation import UNREADABLE
    from geneval.summary import format_reference, format_table, reference_line, summarize
    from genloop.ledger import rows_of_units
    from genloop.rundir import write_atomic, write_json
    from genloop.runs.rows import EvaluatedRow

    rows = rows_of_units(config.out, units, EvaluatedRow.from_json)
    unreadable = [row.image for row in rows if row.reason.startswith(UNREADABLE)]
    summary = summarize(rows, unreadable=unreadable, intervals=config.intervals)
    lacks = _lacks(config, folders)
    regime = result_card(config.out, config.folder, samples, rows, evaluator_facts(config, resolve))
    write_json(config.out / "card.json", regime)
    more = {"intervals": config.intervals, "completeness": lacks.to_json(), "card": regime}
    write_json(config.out / "summary.json", summary.to_json() | more)
    text = format_table(summary) + "".join(f"{line}\n" for line in [*lacks.lines(), *remarks(regime)])
    if config.format == "reference":
        lines = b"".join(reference_line(row, config.images or "") for row in rows)
        write_atomic(config.out / "results.jsonl", lines)
        text = format_reference(rows)
    write_atomic(config.out / "summary.txt", text.encode())
    terminal.out(text)


if __name__ == "__main__":
    run(main, Config)
