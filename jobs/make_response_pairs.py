"""Draw scenes of the embedded world with a right and a wrong answer about each.

    genloop run make_response_pairs tiny out=runs/pairs
    genloop run make_response_pairs shapes out=runs/pairs-train prompt_set=learn num_pairs=2000
    genloop run evaluate_judges tiny data.path=runs/pairs/pairs/pairs.jsonl out=runs/judges

Reads   nothing. Pair i is a function of (seed, i) and the set of prompts alone; learn and learn_test share no
        prompt.
Writes  RUN/pairs/pairs.jsonl (id, query, first, second, better, group, image) and an image a pair, for
        evaluate_judges; RUN/pairs/chats.jsonl, each question with its better answer, for train_vlm.
Resume  the same command computes it again; the bytes depend on the config alone.
"""

from typing import Literal

from pydantic import Field

from genloop.bounds import Count
from genloop.config import JobConfig
from genloop.distributed import World
from genloop.job import run

KIND = "independent"


class Config(JobConfig):
    num_pairs: Count = Field(240, description="scenes, spread evenly over GenEval's six tasks")
    prompt_set: Literal["train", "test", "learn", "learn_test"] = Field(
        "learn_test", description="set of prompts that scenes are drawn for; learn and learn_test share none"
    )
    question: Literal["what", "whether"] = Field(
        "whether",
        description="what: what does the picture show, with two descriptions; whether: does it show that, with yes and "
        "no, in the words that shapes/judge was trained on",
    )


def check(config: Config) -> None:
    """Its keys say all."""


def main(config: Config, world: World, checked: None) -> None:
    from genloop.reading import json_object, read_bytes
    from genloop.rundir import json_line, write_atomic
    from genloop.shapes.response_pairs import chat_of_row, draw_pair, draw_question, write_response_pairs

    if world.rank != 0:
        return
    draw = draw_pair if config.question == "what" else draw_question
    folder = config.out / "pairs"
    file = write_response_pairs(folder, range(config.num_pairs), seed=config.seed, name=config.prompt_set, draw=draw)
    chats = [json_line(chat_of_row(json_object(line))) for line in read_bytes(file).splitlines()]
    write_atomic(folder / "chats.jsonl", b"".join(chats))


if __name__ == "__main__":
    run(main, Config)
