"""Write prompt files: GenEval's, the embedded world's, a grammar's, or a file's.

    genloop run make_prompts geneval out=runs/prompts
    genloop run make_prompts geneval out=runs/prompts-7 seed=7 num_prompts=20
    genloop run make_prompts shapes_heldout out=runs/heldout
    genloop run make_prompts shapes_search out=runs/search
    genloop run make_prompts geneval out=runs/learn seed=44 without=[runs/prompts/generation_prompts.txt]
    genloop run make_prompts dogs out=runs/dogs
    genloop run make_prompts dogs out=runs/own kind=file file=captions.csv column=caption split_by=[breed]

Reads   nothing, a text, CSV or TSV file (`file`), or prompt files whose sentences are left out.
Writes  RUN/generation_prompts.txt, one prompt a line; RUN/evaluation_metadata.jsonl, one JSON object a line. The
        preset `geneval` (seed 43, 100 a task) gives the 553 published prompts byte for byte. From a grammar or a
        file RUN/train.txt, val.txt and eval.txt: no sentence is there twice, and no combination of the slots (or
        columns) in `split_by` is in two of them; RUN/slots.jsonl, the slots of each prompt; RUN/summary.json,
        counts. A file gives all its sentences, a grammar up to num_prompts.
Resume  the same command computes it again; the bytes depend on the config and the files alone.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from genloop import terminal
from genloop.bounds import CountOrNone
from genloop.config import ADDED, InputPath, JobConfig, ReadPaths
from genloop.data.grammar import Grammar, Prompts, Split, deal, draw, read_sentences, without, write_splits
from genloop.data.prompts import left_out, write_prompts
from genloop.distributed import World
from genloop.job import run

if TYPE_CHECKING:
    from genloop.records import Prompt

KIND = "independent"


class Config(JobConfig):
    kind: Literal[
        "geneval",
        "shapes_train",
        "shapes_test",
        "shapes_heldout",
        "shapes_learn",
        "shapes_learn_test",
        "grammar",
        "file",
    ] = Field("geneval", description="GenEval's generator, a prompt set of the embedded world, a grammar, or a file")
    num_prompts: CountOrNone = Field(
        100, description="prompts of each task, before duplicates are dropped; of a grammar in all"
    )
    repeat: bool = Field(False, description="go through the sentences of a small task again, up to num_prompts")
    without: Annotated[ReadPaths, ADDED] = Field(
        (), description="prompt files whose sentences are left out, so that the rest can be learned from"
    )

    grammar: Annotated[Grammar | None, ADDED] = Field(
        None, description="of kind=grammar: `templates`, sentences with {slots}, and `slots`, the values of each"
    )
    file: Annotated[InputPath | None, ADDED] = Field(
        None, description="of kind=file: one prompt a line, or a .csv or .tsv file with a header"
    )
    column: Annotated[str, ADDED] = Field("prompt", description="the column of a .csv or .tsv file that holds prompts")
    split_by: Annotated[tuple[str, ...], ADDED] = Field(
        (), description="slots or columns; each combination of their values is in one split only"
    )
    shares: Annotated[Split, ADDED] = Field(Split(), description="shares of train, val and eval")


def check(config: Config) -> Prompts:
    """A set of the embedded world cannot be empty; GenEval's always has its single objects, and no sentence twice."""
    if config.kind not in ("geneval", "file") and config.num_prompts < 1:
        raise ValueError(f"num_prompts: must be at least 1 for {config.kind}, found {config.num_prompts}")
    if config.kind == "geneval" and config.repeat:
        raise ValueError("repeat: GenEval's generator drops repeated prompts; use a set of the embedded world")
    for key, wanted in (("grammar", config.grammar), ("file", config.file)):
        if config.kind == key and wanted is None:
            raise ValueError(f"{key}: needs a value with kind={key}")
    if config.kind not in ("grammar", "file"):
        left_out(_draw(config), config.without)
        return {}
    found = _split(config)
    return {name: without(rows, config.without) for name, rows in found.items()} if config.without else found


def inputs(config: Config, checked: Prompts) -> dict[str, Path]:
    """What is left out decides what is written."""
    return {f"without.{number}": path for number, path in enumerate(config.without)}


def main(config: Config, world: World, checked: Prompts) -> None:
    if checked:
        write_splits(config.out, checked, config.split_by)  # the same bytes from every worker
        if world.rank == 0:
            counts = ", ".join(f"{name} {len(rows)}" for name, rows in checked.items())
            terminal.out(f"{config.out}: prompts of {counts}")
        return
    prompts = left_out(_draw(config), config.without)
    paths = write_prompts(config.out, prompts)  # the same bytes from every worker
    if world.rank == 0:
        terminal.out(f"{len(prompts)} prompts: {paths[0]}, {paths[1]}")


def _split(config: Config) -> Prompts:
    if config.file is not None and config.kind == "file":
        rows = read_sentences(config.file, config.column, config.split_by)
        return deal(rows, config.split_by, config.shares, config.seed)
    assert config.grammar is not None
    return draw(config.grammar, config.split_by, config.shares, config.num_prompts, config.seed)


def _draw(config: Config) -> "list[Prompt]":
    if config.kind == "geneval":
        from geneval.prompts import generate

        return generate(config.seed, config.num_prompts)
    from genloop.shapes.prompts import prompt_set

    return prompt_set(config.kind.removeprefix("shapes_"), config.seed, config.num_prompts, repeat=config.repeat)


if __name__ == "__main__":
    run(main, Config)
