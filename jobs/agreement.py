"""Measure how well an evaluator agrees with people, or make a sheet to ask them.

    genloop run agreement votes runs=runs/sdv2-verdicts annotations=annotations_sdv2.csv out=runs/sdv2-agreement
    genloop run agreement votes runs=[runs/x,runs/y] annotations=[x.csv,y.csv] other=[runs/x2,runs/y2] out=runs/all
    genloop run agreement audit runs=runs/a-verdicts out=runs/a-audit
    genloop run agreement votes runs=runs/a-verdicts annotations=runs/a-audit/audit.csv out=runs/a-agreement

Reads   finished runs of `evaluate`, or result files as GenEval writes them; people's answers as CSV: GenEval's
        published annotations (one file for each entry of `runs`, in the same order), their consensus, or filled
        audit sheets (several people's sheets of one run add up). `other`: a second evaluator's verdicts on the
        same images.
Writes  RUN/agreement.md (also printed) and RUN/agreement.json: agreement, Cohen's kappa, precision and recall by
        task, agreement by how divided people were, and the difference of two evaluators. With sheet=N instead of
        annotations RUN/audit.html and RUN/audit.csv: N images, drawn by `seed` evenly from the tasks, without
        their verdicts.
Resume  the same command computes it again; the bytes depend on verdicts, answers and config alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

from pydantic import BeforeValidator, Field

from genloop import terminal
from genloop.bounds import Count
from genloop.config import LAUNCH, JobConfig, listed
from genloop.distributed import World
from genloop.job import run
from genloop.meanings import RESAMPLES
from genloop.runs.evaluations import Evaluation, content_of, read_evaluation
from genloop.stats.agreement.votes import SHEET, Rule, check_votes

if TYPE_CHECKING:
    from genloop.stats.agreement.measure import AnnotatedImage

KIND = "independent"


Paths = Annotated[list[Path], LAUNCH, BeforeValidator(listed)]


class Config(JobConfig):
    runs: Paths = Field(min_length=1, description="runs of evaluate or result files; read by content")
    other: Paths = Field([], description="a second evaluator's verdicts on the same images, in the same order")
    annotations: Paths = Field([], description="CSV files of people's answers")
    rule: Rule = Field("loose", description="loose: more objects than asked for are fine, but when counting; strict")
    num_resamples: Count = Field(4000, ge=100, description=RESAMPLES)
    sheet: Count | None = Field(None, description="make an audit sheet of so many images instead")


class Source(NamedTuple):
    """Images of one model: one or two evaluators' verdicts, and the files with people's answers."""

    rows: Path
    other: Path | None
    annotations: Sequence[Path]


@dataclass(frozen=True)
class Checked:
    """Images with people's answers and verdicts, and counts of what was left out; none for a sheet."""

    images: "Sequence[AnnotatedImage]"
    facts: Mapping[str, int]


def check(config: Config) -> Checked:
    """All files, and that they belong together, before anything is written."""
    if (config.sheet is None) == (not config.annotations):
        raise ValueError("give either annotations=[CSV,...] to measure, or sheet=N to make an audit sheet")
    if config.sheet is not None and (len(config.runs) != 1 or config.runs[0].is_file()):
        raise ValueError("sheet: needs `runs` to be one run of evaluate, whose images can be shown")
    if config.sheet is not None:
        from genloop.report.audit.sheet import draw

        draw(config.runs[0], config.sheet, config.seed)
    images: list[AnnotatedImage] = []
    facts: dict[str, int] = {}
    for source in _sources(config):
        found, counts = _label(source, config)
        images += found
        facts = {key: facts.get(key, 0) + count for key, count in counts.items()}
    return Checked(images, facts)


def inputs(config: Config, checked: Checked) -> dict[str, Path]:
    """Verdicts and answers, wherever they lie."""
    found = {f"annotations.{number}": path for number, path in enumerate(config.annotations)}
    for key in ("runs", "other"):
        for number, path in enumerate(getattr(config, key)):
            found |= content_of(path, f"{key}.{number}")
    return found


def main(config: Config, world: World, checked: Checked) -> None:
    if world.rank != 0:
        return
    if config.sheet is not None:
        from genloop.report.audit.sheet import write_sheet

        terminal.out(str(write_sheet(config.runs[0], config.out, config.sheet, config.seed)))
    else:
        _measure(config, checked)


def _measure(config: Config, checked: Checked) -> None:
    from genloop.report.runs import short_names
    from genloop.rundir import write_atomic, write_json
    from genloop.stats.agreement.measure import agreement
    from genloop.stats.agreement.tables import as_json, markdown

    short = short_names([*config.runs, *config.other])
    names = [", ".join(part) for part in (short[: len(config.runs)], short[len(config.runs) :]) if part]
    told = {"rule": config.rule, **checked.facts}
    result = agreement(checked.images, config.seed, num_resamples=config.num_resamples)
    text = markdown(result, names, told)
    write_json(config.out / "agreement.json", as_json(result, names, told))
    write_atomic(config.out / "agreement.md", text.encode())
    terminal.out_markdown(text)


def _sources(config: Config) -> list[Source]:
    """Rows, the second evaluator's rows and answers that belong together; ValueError when they do not fit."""
    if config.other and len(config.other) != len(config.runs):
        raise ValueError(f"other: found {len(config.other)} for {len(config.runs)} `runs`; they go together in order")
    if not config.annotations:
        return []
    others: list[Path | None] = [*config.other] or [None] * len(config.runs)
    if len(config.runs) == 1 and all(check_votes(path) == SHEET for path in config.annotations):
        return [Source(config.runs[0], others[0], config.annotations)]
    if len(config.annotations) != len(config.runs):
        raise ValueError(
            f"annotations: found {len(config.annotations)} files for {len(config.runs)} `runs`; each model's images "
            "have their own file, in the same order"
        )
    return [Source(*parts[:2], [parts[2]]) for parts in zip(config.runs, others, config.annotations)]


def _label(source: Source, config: Config) -> "tuple[list[AnnotatedImage], dict[str, int]]":
    """The images with votes and verdicts, and how much could not be used."""
    from genloop.stats.agreement.measure import label
    from genloop.stats.agreement.votes import read_votes

    rows = read_evaluation(source.rows)
    prompts = {image.prompt_index: (image.text, image.metadata) for image in rows.images}
    answers = read_votes(source.annotations, prompts, config.rule)
    others = _verdicts(read_evaluation(source.other)) if source.other else None
    images, ties, missing = label(answers.votes, _verdicts(rows), others)
    if not images:
        raise ValueError(
            f"annotations: no image of {source.rows} has answers; is the sheet not filled yet, or are these files of "
            "other images?"
        )
    facts = {"torn rows left out": answers.malformed, "rows without an answer": answers.unanswered}
    facts |= {"rows of prompts that were not evaluated": answers.elsewhere, "images with a tie": ties}
    return images, facts | {"annotated images without a verdict": missing}


def _verdicts(rows: Evaluation) -> Mapping[tuple[int, int], tuple[str, str, bool]]:
    return {(one.prompt_index, one.sample): (one.prompt, one.tag, one.correct) for one in rows.images}


if __name__ == "__main__":
    run(main, Config)
