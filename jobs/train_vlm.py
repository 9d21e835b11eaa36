"""Train a chat model (Qwen, LLaVA-OneVision, InstructBLIP) on chats or pairs.

    genloop run train_vlm tiny out=runs/vlm-tiny
    genloop run train_vlm irg out=runs/irg-qwen data.irg.shards=runs/build_irg-irg/shards
    genloop run train_vlm tiny_pairs out=runs/judge pairs.loss=verdict
    torchrun --nproc-per-node 8 -m jobs.train_vlm qwen25_3b_qlora out=runs/qwen data.irg.shards=SHARDS

Reads   chats: shards with messages (build_irg writes them: DIR/train, DIR/val), JSONL with images by path, or
        LLaVA's JSON; with objective=pairs two answers to each question, as evaluate_judges reads them; a model's
        folder to start from, or the sizes of a new one, whose tokenizer is trained on the chats.
Writes  RUN/supervision.json before the first step: what has a loss, and what was cut or left out;
        RUN/checkpoints/step-*, to resume from; RUN/metrics.jsonl; RUN/adapter, as peft reads it, and with `merged`
        RUN/merged, or without lora.rank RUN/model: folders of transformers; at the end RUN/summary.json: the
        held-out loss with intervals, or how many of the held-out pairs are judged rightly, pair by pair in
        RUN/pairs.jsonl.
Resume  the same command goes on from the newest checkpoint, also with another number of ranks. Every step's batch
        follows from the config; one process gives the same bits with and without interruption.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ckpts.resolve import resolve
from genloop import terminal
from genloop.config import JobConfig
from genloop.distributed import World
from genloop.job import run
from genloop.planning import Footprint
from genloop.rundir import write_json
from genloop.training.objectives.conversations.keys import ChatTrainingKeys
from genloop.training.objectives.conversations.sources import open_sides

if TYPE_CHECKING:
    from genloop.training.objectives.conversations.start import Start
    from genloop.training.objectives.conversations.task import ChatSides, ChatTask
    from genloop.training.objectives.response_pairs.data import ResponseSides
    from genloop.training.objectives.response_pairs.task import PairTask
    from genloop.training.task import Objective

KIND = "collective"


class Config(ChatTrainingKeys, JobConfig):
    """See `ChatTrainingKeys`."""


@dataclass(frozen=True)
class Checked:
    """What `check` read: the model to start from, and both sides of the chats or pairs."""

    start: "Start"
    data: "ChatSides | ResponseSides"


def check(config: Config) -> Checked:
    """Model, adapters and every chat or pair, before anything is written."""
    config.check_keys()
    return _check_pairs(config) if config.objective == "pairs" else _check_chats(config)


def _check_pairs(config: Config) -> Checked:
    from genloop.models.qwen.families import pictures_of
    from genloop.training.objectives.conversations.start import start_of
    from genloop.training.objectives.response_pairs.data import read_pairs

    if config.start is None:
        raise ValueError("start: objective=pairs needs a model to start from")
    start, chat = start_of(config, resolve, (), config.seed)
    how = (chat, pictures_of(chat.folder), config.chat, config.pairs)
    return Checked(start, read_pairs(config.data, *how, most=config.eval_chats, seed=config.seed))


def _check_chats(config: Config) -> Checked:
    from genloop.training.objectives.conversations.start import start_of
    from genloop.training.objectives.conversations.task import read_chats

    sides = open_sides(config.data, config.seed)
    start, chat = start_of(config, resolve, sides.texts(), config.seed)
    return Checked(start, read_chats(config, chat, sides))


def inputs(config: Config, checked: Checked) -> dict[str, Path | str]:
    """Chats or the images of pairs, and the model to start from."""
    start: dict[str, Path | str] = {} if config.start is None else {"start": resolve(config.start)}
    return {**checked.data.digests, **start}


def footprint(config: Config, checked: Checked, *, device: str, ranks: int) -> Footprint:
    """Two steps on the meta device; weights in four bits are counted as such."""
    from genloop.training.footprint import training_footprint
    from genloop.training.objectives.conversations.start import prepared_model, quantised

    def built() -> "Objective[Any, Any]":
        model, _ = prepared_model(config, checked.start, "meta")
        task: Any = task_of(config, checked, World())
        return task.objective(model, task.nothing_before())

    planned = training_footprint(built, config.train, seed=config.seed, device=device, ranks=ranks)
    return quantised(planned, checked.start.build("meta")) if config.quantise == "nf4" else planned


def main(config: Config, world: World, checked: Checked) -> None:
    import torch

    from genloop.training.guards.guard import Guard
    from genloop.training.loop import train
    from genloop.training.objectives.conversations.audit import lines_of
    from genloop.training.objectives.conversations.start import prepared_model, save_trained
    from genloop.training.parts import cast_parameters
    from genloop.training.session import training_session

    with training_session(config.out, config.train, world) as device:
        if world.rank == 0:
            write_json(config.out / "supervision.json", checked.data.report)
            terminal.out(lines_of(checked.data.report))
        model, adapted = prepared_model(config, checked.start, device)
        task: Any = task_of(config, checked, world)
        before = task.at_the_start(model)
        objective = task.objective(model, before)
        objective.guard = Guard(config.guards, config.out, world)
        train(objective, config.train, config.out, world, seed=config.seed)
        if adapted is None:
            cast_parameters(model, getattr(torch, config.saved_dtype))  # what is measured is what is saved
        task.conclude(model, before)
        if world.rank == 0:
            save_trained(config, checked.start, model, adapted, config.out)


def task_of(config: Config, checked: Checked, world: World) -> "ChatTask | PairTask":
    """What is learned from chats, or from pairs of answers."""
    from genloop.training.objectives.conversations.task import ChatSides, ChatTask
    from genloop.training.objectives.response_pairs.task import PairTask

    how = (config, config.out, world, config.seed)
    return ChatTask(checked.data, *how) if isinstance(checked.data, ChatSides) else PairTask(checked.data, *how)


if __name__ == "__main__":
    run(main, Config)
