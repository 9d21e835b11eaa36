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

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from ckpts.resolve import resolve
from genloop import terminal
from genloop.bounds import Count, TotalOrNone, Weight
from genloop.config import LAUNCH, InputPath, JobConfig
from genloop.distributed import World
from genloop.hashing import sha256_tree
from genloop.job import run
from genloop.meanings import EVAL_EVERY, START_OR_NEW
from genloop.planning import Footprint
from genloop.registry import check_installed
from genloop.rundir import write_json
from genloop.training.objectives.conversations.settings import ChatData, ChatModelShape, ChatSettings
from genloop.training.objectives.conversations.sources import Sides, open_sides
from genloop.training.objectives.response_pairs.settings import PairSettings
from genloop.training.settings import LoopSettings, LoraSettings

if TYPE_CHECKING:
    from genloop.models.qwen.model import ChatModel
    from genloop.training.objectives.conversations.audit import Audit
    from genloop.training.objectives.conversations.documents import Documents
    from genloop.training.objectives.conversations.held_out import HeldOutChats
    from genloop.training.objectives.conversations.objective import ConversationObjective
    from genloop.training.objectives.conversations.start import Start
    from genloop.training.objectives.response_pairs.data import ResponseSides
    from genloop.training.objectives.response_pairs.objective import ResponsePairObjective
    from genloop.training.objectives.response_pairs.task import PairTask
    from genloop.training.task import Objective

KIND = "collective"
log = logging.getLogger(__name__)


class Config(JobConfig):
    objective: Literal["conversations", "pairs"] = Field(
        "conversations", description="what the assistant says; pairs: which of two answers is better"
    )
    data: dict[str, ChatData] = Field(
        min_length=1, description="data sets, by any name: shards, a file of chats, or pairs of answers"
    )
    start: Annotated[str | None, LAUNCH] = Field(None, description=START_OR_NEW)
    model: ChatModelShape = ChatModelShape()
    quantise: Literal["none", "nf4"] = Field(
        "none", description="nf4: the frozen weights in four bits with double quantisation; needs lora.rank and `start`"
    )
    saved_dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32",
        description="of what is saved; under train.precision bf16 or fp16 also of frozen weights in training",
    )
    chat: ChatSettings = ChatSettings()
    pairs: PairSettings = PairSettings()
    lora: LoraSettings = LoraSettings()
    lora_part: Literal["language", "qformer", "vision", "all"] = Field(
        "language",
        description="where adapters stand; lora.targets=[attention]: beside the queries and values there, whatever "
        "the family calls them",
    )
    adapter: InputPath | None = Field(None, description="folder of adapters of `start` to go on from")
    merged: bool = Field(False, description="also write the model with its adapters added, RUN/merged")
    vision_lr: Weight | None = Field(0.0, description="of the vision tower; null: train.lr, 0: frozen")
    projector_lr: Weight | None = Field(0.0, description="of the projector; null: train.lr, 0: frozen")
    qformer_lr: Weight | None = Field(0.0, description="of InstructBLIP's Q-Former; null: train.lr, 0: frozen")
    eval_every: TotalOrNone = Field(0, description=EVAL_EVERY)
    eval_chats: Count = Field(200, description="held-out chats, or pairs, that are measured, at the most")
    train: LoopSettings = LoopSettings()


@dataclass(frozen=True)
class Checked:
    """What `check` read: the model to start from, both sides of the data, and what is learned from them."""

    start: "Start"
    sides: Sides
    documents: "Documents"
    audit: "Audit"
    held_out: "HeldOutChats | None"

    @property
    def report(self) -> dict[str, Any]:
        """What is learned from."""
        return self.audit.report


@dataclass(frozen=True)
class CheckedPairs:
    """The same of objective=pairs."""

    start: "Start"
    data: "ResponseSides"

    @property
    def report(self) -> dict[str, Any]:
        """What is learned from."""
        return self.data.report


def check(config: Config) -> Checked | CheckedPairs:
    """Model, adapters and every chat or pair, before anything is written."""
    _check_keys(config)
    return _check_pairs(config) if config.objective == "pairs" else _check_chats(config)


def _check_pairs(config: Config) -> CheckedPairs:
    from genloop.models.qwen.families import pictures_of
    from genloop.training.objectives.response_pairs.data import read_pairs

    if config.start is None:
        raise ValueError("start: objective=pairs needs a model to start from")
    start, chat = _start(config, None)
    _check_model(config, start)
    pictures = pictures_of(chat.folder)
    how = (chat, pictures, config.chat, config.pairs)
    return CheckedPairs(start, read_pairs(config.data, *how, most=config.eval_chats, seed=config.seed))


def _check_chats(config: Config) -> Checked:
    from genloop.models.qwen.families import pictures_of
    from genloop.training.objectives.conversations.audit import audit
    from genloop.training.objectives.conversations.documents import Documents
    from genloop.training.objectives.conversations.held_out import HeldOutChats

    sides = open_sides(config.data, config.seed)
    start, chat = _start(config, sides)
    _check_model(config, start)
    if chat.folder.has_encoder and config.chat.packing:
        raise ValueError("chat.packing: a model with an encoder takes one chat a row; set chat.packing=false")
    pictures = pictures_of(chat.folder)
    documents = Documents(sides.train, chat, pictures, config.chat)
    held_out = Documents(sides.val, chat, pictures, config.chat)
    found = audit(documents)
    measured = HeldOutChats(held_out, audit(held_out), config.eval_chats) if len(held_out) else None
    if config.eval_every and measured is None:
        raise ValueError("eval_every: nothing is held out to measure on; set eval_every=0")
    return Checked(start, sides, documents, found, measured)


def _check_keys(config: Config) -> None:
    """Keys that do not go together; MissingPackage."""
    config.train.check()
    if config.lora.rank:
        check_installed("peft", "train")
    if config.quantise == "nf4":
        check_installed("bitsandbytes", "train")
        if not config.lora.rank or config.start is None:
            raise ValueError("quantise: nf4 weights are frozen; set lora.rank and `start`")
        if any(rate != 0 for rate in (config.vision_lr, config.projector_lr, config.qformer_lr)):
            raise ValueError("quantise: nf4 weights are frozen; set vision_lr=0, projector_lr=0 and qformer_lr=0")
        if config.train.zero_stage == 3:
            raise ValueError("train.zero_stage: 3 cannot shard nf4 weights; use 0, 1 or 2")
    if not config.lora.rank and (config.adapter is not None or config.merged):
        raise ValueError("lora.rank: 0 makes no adapters, which `adapter` and `merged` need; set lora.rank")
    if config.start is None:
        config.model.check()
        if config.lora.rank:
            raise ValueError("lora.rank: adapters need a model beside them; set `start`, or lora.rank=0")


def _start(config: Config, sides: Sides | None) -> "tuple[Start, Any]":
    """The model to start from and its chat; a new one gets a tokenizer of `sides`."""
    import torch

    from genloop.models.qwen.config import check_chat_folder
    from genloop.models.qwen.families import chat_of
    from genloop.models.qwen.load import files_of
    from genloop.models.qwen.tokenizer import tokenizer_files
    from genloop.training.objectives.conversations.start import Start, new_chat

    if config.start is None:
        assert sides is not None
        digest, files = "", tokenizer_files(sides.texts(), config.model.vocab_size)
        chat = new_chat(config.model, config.chat, files)
    else:
        folder = resolve(config.start)
        digest, files = sha256_tree(folder), files_of(folder)
        chat = chat_of(check_chat_folder(folder), config.chat.system)
        if chat.folder.quantised != "none":
            raise ValueError(f"start: the weights of {folder} are {chat.folder.quantised}; name those it was made from")
    dtype = torch.float32 if config.train.precision == "fp32" else getattr(torch, config.saved_dtype)
    how = (config.quantise, config.lora, config.lora_part, config.adapter, config.seed, dtype)
    return Start(chat.folder, digest, files, *how), chat


def _check_model(config: Config, start: "Start") -> None:
    """Layers of `lora`, and adapters to go on from."""
    from genloop.training.adapters import check_adapters

    if config.lora.rank:
        model = start.build("meta")
        start.adapt(model)
        if config.adapter is not None:
            check_adapters(config.adapter, model, config.lora, base=start.digest)


def inputs(config: Config, checked: Checked | CheckedPairs) -> dict[str, Path | str]:
    """Chats or the images of pairs, and the model to start from."""
    start: dict[str, Path | str] = {"start": resolve(config.start)} if config.start is not None else {}
    if isinstance(checked, CheckedPairs):
        return {"images of pairs": checked.data.rows.pairs.images_sha(), **start}
    return {**checked.sides.digests, **start}


def main(config: Config, world: World, checked: Checked | CheckedPairs) -> None:
    import torch

    from genloop.training.loop import train
    from genloop.training.objectives.conversations.audit import lines_of
    from genloop.training.session import training_session

    with training_session(config.out, config.train, world) as device:
        if world.rank == 0:
            write_json(config.out / "supervision.json", checked.report)
            terminal.out(lines_of(checked.report))
        model, adapted = prepared_model(config, checked.start, device)
        objective: Objective[Any, Any]
        if isinstance(checked, CheckedPairs):
            before, reference = pair_task(config, checked, world).at_the_start(model)
            objective = pair_objective(config, checked, model, world, reference)
        else:
            objective = objective_of(config, checked, model, world)
        train(objective, config.train, config.out, world, seed=config.seed)
        if isinstance(checked, CheckedPairs):
            pair_task(config, checked, world).conclude(model, before)
        else:
            conclude(config, checked, model, world)
        if world.rank == 0:
            save(config, checked.start, model, adapted, getattr(torch, config.saved_dtype))


def prepared_model(config: Config, start: "Start", device: str) -> "tuple[ChatModel, Any]":
    """The model, and its adapters when there are some; all that is trained wants gradients."""
    from genloop.training import parts

    model = start.build(device)
    adapted = start.adapt(model) if config.lora.rank else None
    parts.choose_trained(model, parts.lr_scale_of(rates_of(config), config.train.lr), adapted=adapted is not None)
    return model, adapted


def objective_of(config: Config, checked: Checked, model: "ChatModel", world: World) -> "ConversationObjective":
    """What is trained on, and what it is measured on."""
    import numpy as np

    from genloop.training.objectives.conversations.held_out import point_estimates
    from genloop.training.objectives.conversations.objective import ConversationObjective
    from genloop.training.objectives.conversations.packs import one_by_one, pack_documents
    from genloop.training.parts import lr_scale_of
    from genloop.training.precision import Precision

    audit, held_out, documents = checked.audit, checked.held_out, checked.documents

    def evaluate(step: int) -> dict[str, float] | None:
        if held_out is None or step == config.train.num_steps:
            return None  # measured as it is saved
        with Precision(config.train.precision, model.device).autocast():
            return point_estimates(held_out.sums(model, world))

    lengths = audit.lengths.tolist()
    is_packed = config.chat.packing
    packs = pack_documents(lengths, config.chat.max_length) if is_packed else one_by_one(lengths)
    weights = np.zeros(len(documents), dtype=np.int64)
    weights[audit.kept] = audit.weights
    is_sharded = config.train.zero_stage == 3 and world.world_size > 1
    return ConversationObjective(
        model,
        documents,
        [tuple(audit.kept[list(pack)].tolist()) for pack in packs],
        weights.tolist(),
        seed=config.seed,
        lr_scale_of=lr_scale_of(rates_of(config), config.train.lr),
        evaluate=evaluate,
        evaluate_every=config.eval_every,
        idle=documents.pictures.blank() if is_sharded and documents.pictures is not None else None,
    )


def pair_task(config: Config, checked: CheckedPairs, world: World) -> "PairTask":
    """What is done with pairs."""
    from genloop.training.objectives.response_pairs.task import PairTask

    return PairTask(checked.data, config.pairs, config.train, config.out, world, config.seed)


def pair_objective(
    config: Config, checked: CheckedPairs, model: "ChatModel", world: World, reference: Any
) -> "ResponsePairObjective":
    """What is trained on where answers are compared."""
    from genloop.training.parts import lr_scale_of

    return pair_task(config, checked, world).objective(
        model,
        reference,
        batch_size=config.chat.batch_size,
        lr_scale_of=lr_scale_of(rates_of(config), config.train.lr),
        evaluate_every=config.eval_every,
    )


def rates_of(config: Config) -> dict[str, float | None]:
    """Learning rates of the parts beside the language model."""
    return {"vision": config.vision_lr, "projector": config.projector_lr, "qformer": config.qformer_lr}


def footprint(config: Config, checked: Checked | CheckedPairs, *, device: str, ranks: int) -> Footprint:
    """Two steps on the meta device; weights in four bits are counted as such."""
    from genloop.training.footprint import training_footprint
    from genloop.training.objectives.conversations.start import quantised

    def built() -> "Objective[Any, Any]":
        model, _ = prepared_model(config, checked.start, "meta")
        if isinstance(checked, CheckedPairs):
            nothing = pair_task(config, checked, World()).no_reference()
            return pair_objective(config, checked, model, World(), nothing)
        return objective_of(config, checked, model, World())

    planned = training_footprint(built, config.train, seed=config.seed, device=device, ranks=ranks)
    return quantised(planned, checked.start.build("meta")) if config.quantise == "nf4" else planned


def save(config: Config, start: "Start", model: "ChatModel", adapted: Any, dtype: Any) -> None:
    """Write the adapters and the merged model, or the model."""
    if adapted is None:
        start.save(model, config.out / "model", dtype)
        return
    start.save_adapter(adapted, config.out / "adapter", str(config.start))
    if config.merged:
        start.save(start.merged(adapted, config.out / "adapter", dtype), config.out / "merged", dtype)


def conclude(config: Config, checked: Checked, model: "ChatModel", world: World) -> None:
    """Measure the trained model, called on all ranks; rank 0 writes what it is worth."""
    from genloop.training.objectives.conversations.held_out import summary_of

    sums = checked.held_out.sums(model, world) if checked.held_out is not None else None
    if world.rank:
        return
    if sums is None:
        log.warning("nothing is held out: what the model is worth was not measured")
        return
    summary = summary_of(sums, config.seed)
    write_json(config.out / "summary.json", summary)
    loss, accuracy = summary["loss"], summary["accuracy"]
    terminal.out(
        f"held out: {summary['chats']} chats, loss {loss[0]:.3f} [{loss[1]:.3f}, {loss[2]:.3f}], "
        f"right tokens {accuracy[0]:.1%} [{accuracy[1]:.1%}, {accuracy[2]:.1%}]"
    )


if __name__ == "__main__":
    run(main, Config)
