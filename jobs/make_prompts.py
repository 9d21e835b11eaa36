"""Write a prompt file and its GenEval metadata: GenEval's own generator, or a prompt set of the embedded world.

    genloop run make_prompts geneval out=runs/prompts
    genloop run make_prompts geneval out=runs/prompts-7 seed=7 num_prompts=20
    genloop run make_prompts shapes_heldout out=runs/heldout
    genloop run make_prompts shapes_search out=runs/search
    genloop run make_prompts geneval out=runs/learn seed=44 without=[runs/prompts/generation_prompts.txt]

Reads   nothing, or prompt files whose sentences are left out.
Writes  RUN/generation_prompts.txt, one prompt a line; RUN/evaluation_metadata.jsonl, one JSON object a line. The
        preset `geneval` (seed 43, 100 a task) gives the 553 published prompts byte for byte.
Resume  the same command writes the same bytes again.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field

from genloop import terminal
from genloop.bounds import CountOrNone
from genloop.config import ADDED, LAUNCH, JobConfig, shipped
from genloop.data.prompts import left_out, write_prompts
from genloop.distributed import World
from genloop.job import run

if TYPE_CHECKING:
    from genloop.records import Prompt

KIND = "independent"


class Config(JobConfig):
    source: Literal["geneval", "shapes_train", "shapes_test", "shapes_heldout", "shapes_learn", "shapes_learn_test"] = (
        Field("geneval", description="GenEval's generator, or a prompt set of the embedded world")
    )
    num_prompts: CountOrNone = Field(100, description="prompts of each task, before duplicates are dropped")
    repeat: bool = Field(False, description="go through the sentences of a small task again, up to num_prompts")
    without: Annotated[tuple[Annotated[Path, AfterValidator(shipped)], ...], LAUNCH, ADDED] = Field(
        (), description="prompt files whose sentences are left out, so that the rest can be learned from"
    )


def check(config: Config) -> None:
    """A set of the embedded world cannot be empty; GenEval's always has its single objects, and no sentence twice."""
    if config.source != "geneval" and config.num_prompts < 1:
        raise ValueError(f"num_prompts: must be at least 1 for {config.source}, found {config.num_prompts}")
    if config.source == "geneval" and config.repeat:
        raise ValueError("repeat: GenEval's generator drops repeated prompts; use a set of the embedded world")
    left_out(_draw(config), config.without)


def inputs(config: Config, checked: None) -> dict[str, Path]:
    """What is left out decides what is written."""
    return {f"without.{number}": path for number, path in enumerate(config.without)}


def main(config: Config, world: World, checked: None) -> None:
    prompts = left_out(_draw(config), config.without)
    paths = write_prompts(config.out, prompts)  # the same bytes from every worker
    if world.rank == 0:
        terminal.out(f"{len(prompts)} prompts: {paths[0]}, {paths[1]}")


def _draw(config: Config) -> "list[Prompt]":
    if config.source == "geneval":
        from geneval.prompts import generate

        return generate(config.seed, config.num_prompts)
    from genloop.shapes.prompts import prompt_set

    return prompt_set(config.source.removeprefix("shapes_"), config.seed, config.num_prompts, repeat=config.repeat)


if __name__ == "__main__":
    run(main, Config)
