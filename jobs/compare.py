"""Compare two evaluations of the same prompts: paired differences and tests.

    genloop run compare geneval a=runs/a-verdicts b=runs/b-verdicts out=runs/b-minus-a
    genloop run compare geneval a=runs/a-verdicts b=runs/b-verdicts out=runs/b-minus-a allow=[guidance,steps]
    genloop run compare geneval a=runs/a-verdicts b=theirs/results.jsonl out=runs/x allow=[card,coverage]

Reads   two finished runs of `evaluate` (or result files as GenEval writes them), and the cards that say how their
        images were made and judged.
Writes  RUN/comparison.md (also printed), which names the prompts that changed; RUN/comparison.json with every
        image whose verdict differs; RUN/forest.svg and .png.
Resume  the same command computes it again; the bytes depend on the two evaluations and the config alone.

Runs whose conditions differ (guidance, steps, size, seeds, prompts rewritten or not), that were judged otherwise,
do not cover the same images, or do not say, are refused unless `allow` names what differs. allow=all is for
everything but the judging, which has to be named.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field

from genloop import terminal
from genloop.bounds import Count, CountOrNone
from genloop.config import LAUNCH, JobConfig, listed
from genloop.distributed import World
from genloop.job import run
from genloop.meanings import INTERVALS, RESAMPLES
from genloop.runs.evaluations import Evaluation, content_of, read_evaluation
from genloop.stats.comparison.regime import Differing
from genloop.stats.rates import Kind

KIND = "independent"


class Config(JobConfig):
    a: Annotated[Path, LAUNCH] = Field(description="the base: run of evaluate, or a result file; read by content")
    b: Annotated[Path, LAUNCH] = Field(description="what is compared with it")
    allow: Annotated[list[str], LAUNCH, BeforeValidator(listed)] = Field(
        [], description="conditions that may differ; all: every one but those of the judging"
    )
    intervals: Kind = Field("bootstrap", description=INTERVALS)
    num_resamples: Count = Field(4000, ge=100, description=RESAMPLES)
    num_flips: Annotated[CountOrNone, LAUNCH] = Field(20, description="changed prompts shown in the table")


@dataclass(frozen=True)
class Checked:
    """Both evaluations, what to call them, and the conditions that differ, all of them allowed."""

    a: Evaluation
    b: Evaluation
    names: tuple[str, str]
    conditions: Sequence[Differing]


def check(config: Config) -> Checked:
    """Both evaluations, and that they may be compared, before anything is written."""
    from genloop.report.runs import short_names
    from genloop.stats.comparison.compare import conditions_of, pair_up
    from genloop.stats.comparison.regime import names_of, refuse

    a, b = read_evaluation(config.a), read_evaluation(config.b)
    first, second = short_names([config.a, config.b])  # the shortest parts of their paths that tell them apart
    conditions = conditions_of(a, b)
    refuse(conditions, config.allow, (first, second), names_of(a.card, b.card))
    pair_up(a, b)
    return Checked(a, b, (first, second), conditions)


def inputs(config: Config, checked: Checked) -> dict[str, Path]:
    """The verdicts of both and what they say of their making, wherever they lie."""
    return content_of(config.a, "a") | content_of(config.b, "b")


def main(config: Config, world: World, checked: Checked) -> None:
    from genloop.report.figures.canvas import write_figure
    from genloop.report.figures.forest import forest_svg
    from genloop.rundir import write_atomic, write_json
    from genloop.stats.comparison.compare import compare
    from genloop.stats.comparison.tables import as_json, markdown

    if world.rank != 0:
        return
    conditions, names = checked.conditions, checked.names
    found = compare(checked.a, checked.b, config.seed, kind=config.intervals, num_resamples=config.num_resamples)
    text = markdown(found, names, conditions, num_flips=config.num_flips)
    figure = forest_svg(found.changes, f"{names[1]} minus {names[0]}")
    write_json(config.out / "comparison.json", as_json(found, names, conditions))
    write_atomic(config.out / "comparison.md", text.encode())
    write_figure(config.out / "forest", figure)
    terminal.out_markdown(text)


if __name__ == "__main__":
    run(main, Config)
