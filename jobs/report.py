"""Show evaluations as one page: scores, costs, paired differences, images.

    genloop report runs/a-verdicts
    genloop report runs/a-verdicts runs/b-verdicts --out runs/a-and-b
    genloop run report tiny out=runs/a-and-b runs=[runs/a-verdicts,runs/b-verdicts]

Reads   runs of `evaluate`; the `generate` runs that their images came from, for costs, close-ups and provenance.
        Of a run with previews=judged, close-ups show what the judge saw at each step.
Writes  OUT/index.html (styles and images inside, no script), OUT/table.md, OUT/table.json; from three runs on
        OUT/cost.svg and .png, score against cost.
Resume  the same command computes it again; the bytes depend on the run folders alone. A run that is still going is
        shown as far as it is, and marked so.

Runs that the job `compare` would refuse are shown side by side without differences, and with the command that
compares them anyway. From three runs on they are also rows of one table: gain over the first and over its control
(`controls`), cost of the search, and cost of the trainings that a run's checkpoints came from, found by what
configs name.
"""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from genloop import terminal
from genloop.bounds import CountOrNone
from genloop.config import LAUNCH, JobConfig
from genloop.distributed import World
from genloop.job import run

KIND = "independent"


class Config(JobConfig):
    runs: list[Path] = Field(min_length=1, description="run folders of evaluate; the first is the base of comparisons")
    controls: list[tuple[Path, Path]] = Field(
        [], description="pairs of them, [run, its control], that are compared too"
    )
    gallery: Annotated[CountOrNone, LAUNCH] = Field(48, description="cards in the gallery")
    closeups: Annotated[CountOrNone, LAUNCH] = Field(6, description="images whose making is shown")


def check(config: Config) -> None:
    """Every run must be one of evaluate, with something in it; controls are among them."""
    from genloop.report import check_runs

    check_runs(config.runs, config.controls)


def main(config: Config, world: World, checked: None) -> None:
    from genloop.report import write_report

    if world.rank == 0:
        sizes = {"num_cards": config.gallery, "num_closeups": config.closeups}
        page = write_report(config.runs, config.out, controls=config.controls, **sizes)
        terminal.out(str(page))


if __name__ == "__main__":
    run(main, Config)
