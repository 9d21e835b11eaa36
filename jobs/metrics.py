"""Measure images: CLIPScore, VQAScore, GenEval 2, FID, KID, CMMD, or your own.

    genloop run metrics tiny out=runs/m
    genloop run metrics clip images=runs/a out=runs/m metrics.clip_score.checkpoint=FOLDER --procs 2
    genloop run metrics images=IMAGES out=runs/m reference=COCO metrics.fid.features=pixels
    genloop run metrics images=runs/a out=runs/m reference=runs/teacher floor=runs/teacher2 metrics.pairs.size=512
    genloop run metrics images=COCO out=runs/coco metrics.statistics.features=pixels
    genloop run metrics images=IMAGES out=runs/m reference=runs/coco metrics.fid.features=pixels

Reads   images in GenEval's layout, or in one folder with a file of prompts (docs/metrics.md); what the metrics
        need: weights, a judge, a reference: another folder of images, a run that kept its statistics, or an .npz
        of them.
Writes  RUN/rows/*.jsonl, one line an image: its scores; RUN/features/METRIC/*.npy, a unit each. When all units are
        done RUN/statistics/METRIC.npz, RUN/summary.json and RUN/table.md (also printed); of pairs
        RUN/pairs/index.html and table.md, .csv, .tex and .json: pictures, gains over the other sides.
        format=published: the same as RUN/pairs/published/{sdxl_images,weakmodel_images,metrics,visualization,...}
        (docs/metrics.md).
Resume  the same command; finished units are kept, any number of workers may join or leave. An image that does not
        decode has no scores and is listed.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from ckpts.resolve import resolve
from genloop import terminal
from genloop.bounds import Count, Threads, Total
from genloop.config import LAUNCH, ComputeKeys, IndependentConfig, InputPath
from genloop.distributed import World, choose_device
from genloop.job import loading, note, run
from genloop.ledger import Ledger, count, plan_units
from genloop.meanings import CACHE, DECODERS, IMAGES
from genloop.metrics.makers import ANY_QUESTION, METRICS, Metrics, Tools, metric_maker
from genloop.metrics.measurement import Measurement, Work, measure
from genloop.metrics.statistics import has_statistics
from genloop.records import Unit
from genloop.rewards.build import build_judge, check_asker, check_judge, check_prompts
from genloop.rewards.settings import JudgeSettings
from genloop.rundir import check_cache
from genloop.runs.generated import image_folder

KIND = "independent"


class Config(ComputeKeys, IndependentConfig):
    images: Annotated[Path, LAUNCH] = Field(description=IMAGES)
    prompts: InputPath | None = Field(None, description="their prompts, where the folder does not hold them")
    metrics: Metrics = Field(description=f"{{metric: its options}}; {', '.join(METRICS)}, module:class")
    reference: Annotated[Path | None, LAUNCH] = Field(
        None,
        description="what distances go to: folder of images, run with statistics, or .npz; fingerprinted by content",
    )
    floor: Annotated[Path | None, LAUNCH] = Field(
        None, description="for pairs: the reference's generator with another seed; fingerprinted by content"
    )
    baseline: Annotated[Path | None, LAUNCH] = Field(
        None, description="for pairs: what the images are to be better than; fingerprinted by content"
    )
    format: Annotated[Literal["page", "published"], LAUNCH] = Field(
        "page", description="published: also the folders of the published tool, for pairs"
    )
    judge: JudgeSettings = JudgeSettings()
    limit: Total | None = Field(None, description="only the first so many images, of the reference too")
    unit_size: Count = Field(32, description="images in one unit of work")
    cache: Annotated[Path | None, LAUNCH] = Field(None, description=CACHE)
    decoders: Annotated[Threads, LAUNCH] = Field(4, description=DECODERS)

    @field_validator("images", "reference", "floor", "baseline")
    @classmethod
    def _of_a_run(cls, images: Path | None, info: ValidationInfo) -> Path | None:
        """A run folder stands for the images in it; a reference may be a run that has statistics instead."""
        if images is None or (info.field_name == "reference" and has_statistics(images)):
            return images
        return image_folder(images)


def check(config: Config) -> Measurement:
    """Options, weights, folders, prompts, the judge and the reference, before anything is loaded or written."""
    sides = {"baseline": config.baseline, "floor": config.floor}
    what = Measurement(
        config.metrics,
        config.images,
        config.reference,
        config.prompts,
        config.limit,
        resolve,
        {key: folder for key, folder in sides.items() if folder is not None},
        config.seed,
    )
    what.check()
    check_cache(config.cache, "cache")
    for name in what.needs("judge"):
        maker: Any = metric_maker(name)
        questions = maker.questions(what.scores[name])
        if ANY_QUESTION in questions:
            check_asker(config.judge, resolve)
        check_judge(config.judge, resolve, [question for question in questions if question != ANY_QUESTION])
        if "outcome" in questions:
            check_prompts(config.judge, [picture.prompt for picture in what.pictures if picture.prompt])
    return what


def inputs(config: Config, checked: Measurement) -> dict[str, Path | str]:
    """Images, reference and weights, whose content enters the fingerprint wherever they lie."""
    return checked.inputs() | (config.judge.inputs(resolve, "judge") if checked.needs("judge") else {})


def main(config: Config, world: World, checked: Measurement) -> None:
    import torch

    from genloop.data.image_reader import ImageReader

    torch.set_num_threads(config.threads)
    units = plan_units(len(checked.pictures) + len(checked.others), config.unit_size)
    with ImageReader(Path(), config.decoders) as reader, Ledger.of(config, units, world) as ledger:
        work: Work | None = None
        for unit in ledger.claims():
            work = work or _load(config, checked, world)
            with ledger.working(unit), note(f"items {unit.start} to {unit.stop - 1}"):
                rows = measure(checked, unit, work, reader, ledger)
                ledger.advance(len(unit))
                ledger.complete(unit, rows)
    if count(config.out, len(units)).done == len(units):
        _conclude(config, checked, units)


def _load(config: Config, what: Measurement, world: World) -> Work:
    with loading():
        device = choose_device(config.device, world)
        judge = cache(lambda: build_judge(config.judge, resolve, device))  # only if a metric asks for it
        return what.load(Tools(resolve, device, judge), config.cache)


def _conclude(config: Config, what: Measurement, units: Sequence[Unit]) -> None:
    """Write and print the numbers; workers that end together write the same bytes."""
    from genloop.ledger import rows_of_units
    from genloop.metrics.summary import conclude, format_table, summary_of
    from genloop.reading import json_object
    from genloop.rundir import RunFailed, write_atomic, write_json

    rows = rows_of_units(config.out, units, json_object)
    try:
        lines = conclude(what, units, rows, config.out, config.seed)
    except ValueError as error:  # too few images for a metric, a reference of other features
        raise RunFailed(f"{error}; rows and features are kept in {config.out}") from error
    write_json(config.out / "summary.json", summary_of(rows, lines))
    if what.needs("pairs"):
        from genloop.report.images.write import write_pairs

        write_pairs(what, rows, config.out, config.seed, config.format)
    text = format_table(rows, lines)
    write_atomic(config.out / "table.md", text.encode())
    terminal.out_markdown(text)


if __name__ == "__main__":
    run(main, Config)
