"""Write a prompt file and its GenEval metadata: GenEval's own generator, or a prompt set of the embedded world.

    genloop run make_prompts geneval out=runs/prompts
    genloop run make_prompts geneval out=runs/prompts-7 seed=7 num_prompts=20
    genloop run make_prompts shapes_heldout out=runs/heldout
    genloop run make_prompts shapes_search out=runs/search

Reads   nothing.
Writes  RUN/generation_prompts.txt, one prompt a line; RUN/evaluation_metadata.jsonl, one JSON object a line. The
        preset `geneval` (seed 43, 100 a task) gives the 553 published prompts byte for byte.
Resume  the same command writes the same bytes again.
"""

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from genloop import terminal
from genloop.bounds import CountOrNone
from genloop.config import JobConfig
from genloop.data.prompts import write_prompts
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


def check(config: Config) -> None:
    """A set of the embedded world cannot be empty; GenEval's always has its single objects, and no sentence twice."""
    if config.source != "geneval" and config.num_prompts < 1:
        raise ValueError(f"num_prompts: must be at least 1 for {config.source}, found {config.num_prompts}")
    if config.source == "geneval" and config.repeat:
        raise ValueError("repeat: GenEval's generator drops repeated prompts; use a set of the embedded world")


def main(config: Config, world: World, checked: None) -> None:
    prompts = _draw(config)
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
