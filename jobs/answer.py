"""Answer questions about images in words (Show-o's mmu mode).

    genloop run answer tiny out=runs/answers
    genloop run answer showo_256 out=runs/answers images=IMAGES questions=questions.txt --procs 2

Reads   a folder of images and a file of questions, one a line: line i is about the i-th image by name; the
        generator's checkpoints.
Writes  RUN/rows/*.jsonl, one line a question: index, image, question, answer.
Resume  the same command; finished units are kept, any number of workers may join or leave. An answer depends on
        the config, its image and its question alone.
"""

from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from ckpts.resolve import resolve
from genloop.config import IndependentConfig, InputPath
from genloop.data.given import GivenFolder
from genloop.data.prompts import read_texts
from genloop.distributed import World, choose_device
from genloop.job import note, run
from genloop.ledger import Ledger, plan_units
from genloop.records import Seed
from genloop.registry import load
from genloop.sampling.build import build_generator
from genloop.sampling.modes import Answerer, AnswerSettings
from genloop.sampling.settings import GeneratorKeys

KIND = "independent"


class Config(GeneratorKeys, IndependentConfig):
    images: InputPath = Field(description="folder of images")
    questions: InputPath = Field(description="file of questions, one a line, about the images in order of their names")
    answer: AnswerSettings = AnswerSettings()


@dataclass(frozen=True)
class Checked:
    """What there is to do."""

    questions: list[str]
    images: GivenFolder


def check(config: Config) -> Checked:
    """Questions, images and checkpoint headers, before anything is loaded or written."""
    config.generator.mode("answer")
    config.generator.check(resolve)
    questions = read_texts(config.questions)[: config.limit]
    images = GivenFolder(config.images, None, len(questions), all_lines=config.limit is None)
    images.check()
    return Checked(questions, images)


def inputs(config: Config, checked: Checked) -> dict[str, Path]:
    """Checkpoints, whose content enters the fingerprint."""
    return config.generator.inputs(resolve, "generator")


def main(config: Config, world: World, checked: Checked) -> None:
    questions, images = checked.questions, checked.images
    answerer: Answerer | None = None
    with Ledger.of(config, plan_units(len(questions), config.unit_size), world) as ledger:
        for unit in ledger.claims():
            answerer = answerer or _load(config, world)
            with ledger.working(unit), note(f"questions {unit.start} to {unit.stop - 1}"):
                lines = range(unit.start, unit.stop)
                answers = answerer.answer(
                    [images.image(line) for line in lines],
                    questions[unit.start : unit.stop],
                    [Seed(config.seed, line, 0, 0) for line in lines],
                    config.answer,
                )
                rows = [
                    {"index": line, "image": images.names[line], "question": questions[line], "answer": answer}
                    for line, answer in zip(lines, answers, strict=True)
                ]
                ledger.advance(len(unit))
                ledger.complete(unit, rows)


def _load(config: Config, world: World) -> Answerer:
    sampler = build_generator(config, resolve, choose_device(config.device, world))
    return load(config.generator.mode("answer"))(sampler)


if __name__ == "__main__":
    run(main, Config)
