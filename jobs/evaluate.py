"""Judge generated images by GenEval's rules: detections -> counts, colours, positions -> table with intervals.

    genloop run evaluate shapes images=runs/a/images out=runs/a-verdicts
    genloop run evaluate shapes images=runs/a/images out=runs/a-verdicts --procs 2
    genloop run evaluate shapes images=runs/a/images out=runs/a-verdicts format=reference

Reads   an image folder in GenEval's layout (00017/metadata.jsonl, 00017/samples/0000.png), or a run of `generate`.
Writes  RUN/rows/*.jsonl, one line an image: verdict, reasons, detections; when all units are done RUN/summary.json
        and RUN/summary.txt (also printed). With format=reference the summary is the one that GenEval's own script
        prints, and RUN/results.jsonl holds the rows in its form.
Resume  the same command; finished units are kept, any number of workers may join or leave. A row depends on its image,
        the detector and the options alone. An image that does not decode counts as wrong and is listed.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from ckpts.resolve import resolve
from geneval.settings import EvaluatorKeys, build_evaluator, check_evaluator, evaluator_inputs
from genloop.config import LAUNCH, Device, IndependentConfig
from genloop.distributed import World, choose_device
from genloop.job import run
from genloop.ledger import Ledger, count, plan_units

KIND = "independent"


class Config(IndependentConfig, EvaluatorKeys):
    images: Annotated[Path, LAUNCH] = Field(description="image folder, or a run of generate; fingerprinted by content")
    unknown_classes: Annotated[Literal["refuse", "absent"], LAUNCH] = Field(
        "refuse", description="classes that the detector does not know: an error, or never found (as in GenEval)"
    )
    format: Annotated[Literal["genloop", "reference"], LAUNCH] = Field(
        "genloop", description="reference: rows and summary as GenEval's own scripts print them"
    )
    limit: int | None = Field(None, ge=1, description="only the first so many prompt folders")
    unit_size: int = Field(32, ge=1, description="images in one unit of work")
    device: Device = Field("auto", description="auto: the GPU when there is one")
    threads: int = Field(1, ge=1, description="CPU threads of a worker")

    @field_validator("images")
    @classmethod
    def _of_a_run(cls, images: Path) -> Path:
        """A run folder stands for the images in it."""
        return images / "images" if (images / "run.json").is_file() else images


def check(config: Config) -> None:
    """Names, layout and every metadata file, before anything is loaded or written."""
    from geneval.folder import find_samples

    known = check_evaluator(config, resolve)
    find_samples(config.images, classes=known if config.unknown_classes == "refuse" else None, limit=config.limit)


def inputs(config: Config) -> dict[str, Path]:
    """The images and the weights, whose content enters the fingerprint wherever they lie."""
    return {"images": config.images} | evaluator_inputs(config, resolve)


def main(config: Config, world: World) -> None:
    import torch

    from geneval.evaluation import evaluate
    from geneval.folder import find_samples

    torch.set_num_threads(config.threads)
    samples = find_samples(config.images, limit=config.limit)
    units = plan_units(len(samples), config.unit_size)
    with Ledger.of(config, units, world) as ledger:
        evaluator = None
        for unit in ledger.claims():
            evaluator = evaluator or build_evaluator(config, resolve, choose_device(config.device, world))
            with ledger.working(unit):
                rows = evaluate(samples[unit.start : unit.stop], config.images, evaluator)
                ledger.advance(len(unit))
                ledger.complete(unit, rows)
    if count(config.out, len(units)).done == len(units):
        _conclude(config)


def _conclude(config: Config) -> None:
    """Write and print the summary; workers that end together write the same bytes."""
    from geneval.evaluation import UNREADABLE
    from geneval.summary import format_reference, format_table, reference_line, summarize
    from genloop.ledger import read_rows
    from genloop.rundir import write_atomic, write_json

    rows = list(read_rows(config.out))
    summary = summarize(rows, unreadable=[row["image"] for row in rows if row["reason"].startswith(UNREADABLE)])
    write_json(config.out / "summary.json", summary.to_json())
    text = format_table(summary)
    if config.format == "reference":
        lines = b"".join(reference_line(row, str(config.images)) for row in rows)
        write_atomic(config.out / "results.jsonl", lines)
        text = format_reference(rows)
    write_atomic(config.out / "summary.txt", text.encode())
    print(text, end="", flush=True)


if __name__ == "__main__":
    run(main, Config)
