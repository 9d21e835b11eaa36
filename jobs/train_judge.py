"""Train a judge: a LLaVA-OneVision that answers yes or no about images, from a checkpoint or from nothing.

    genloop run train_judge tiny out=runs/judge-tiny
    genloop run train_judge shapes out=runs/judge data.paths.shards=runs/judge-data/shards --procs 2
    torchrun --nproc-per-node 8 -m jobs.train_judge llava_ov out=runs/judge train.zero_stage=3

Reads   shards of examples (build_judge_data writes them: DIR/train, DIR/val) and published LLaVA conversations (JSON);
        a checkpoint to start from, or sizes of a new model.
Writes  RUN/judge, a checkpoint in the public layout with its tokenizer, questions.yaml and calibration.json, which
        judge.kind=llava loads; RUN/checkpoints/step-*, to resume from; RUN/metrics.jsonl; at the end RUN/summary.json
        and RUN/table.md: accuracy, AUC pooled and within prompts, calibration by question, step and task, all on val
        and on the conversations of held-out prompts;
        RUN/reliability.svg: the share of yes against P(yes). With lora.rank also RUN/adapter, the adapters alone
        as peft reads them; RUN/judge has them merged.
Resume  the same command goes on from the newest checkpoint, also with another number of ranks. Every step's batch
        follows from the config; one process gives the same bits with and without interruption.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from ckpts.resolve import resolve
from genloop.config import LAUNCH, InputPath, JobConfig, Settings
from genloop.data.judge.conversations import Conversation, check_images, read_conversations, says_yes
from genloop.data.judge.examples import QUESTIONS, SPLITS, split_of
from genloop.data.shards import content_digest
from genloop.distributed import World
from genloop.job import run
from genloop.models.llava.config import LlavaConfig, TextDims, VisionDims, check_llava_folder
from genloop.models.llava.text import LlavaTokenizer
from genloop.rewards.questions import FILE, Questions, check_wording, read_questions
from genloop.rundir import sha256_file, write_atomic, write_json
from genloop.stats.judges.summary import FINAL, HeldOutAnswer, format_judge, point_estimates, summarize_judge
from genloop.training.objectives.judge.checks import ADAPTED, check_adapters, check_batch, check_cells, check_shards
from genloop.training.settings import BatchSettings, LoopSettings, LoraSettings, LossSettings

if TYPE_CHECKING:
    from genloop.models.llava.model import Llava
    from genloop.training.objectives.judge.objective import JudgeTrainer

KIND = "collective"
PREVIEW = "preview"  # the step of a conversation about an unfinished image, which does not say it
log = logging.getLogger(__name__)


class DataConfig(Settings):
    """One data set; either shards or conversations. Both are fingerprinted by content."""

    shards: Annotated[Path | None, LAUNCH] = Field(None, description="folder that holds train and val")
    conversations: Annotated[Path | None, LAUNCH] = Field(None, description="a LLaVA conversation file (JSON)")
    images: Annotated[Path | None, LAUNCH] = Field(None, description="folder of the conversations' images")
    weight: float = Field(1.0, gt=0, description="how often shards are drawn from, against the other shards")
    val_share: float = Field(0.05, ge=0, lt=1, description="share of the conversations' prompts that is held out")

    @model_validator(mode="after")
    def _one_of_both(self) -> "DataConfig":
        if (self.shards is None) == (self.conversations is None):
            raise ValueError("needs either shards or conversations")
        if self.conversations is not None and self.images is None:
            raise ValueError("conversations need images, the folder that their image names are below")
        return self


class ModelShape(Settings):
    """Sizes of a new model, for images of the embedded world; its vocabulary is the world's words."""

    image_size: int = Field(24, ge=4)
    patch_size: int = Field(4, ge=1)
    vision_size: int = Field(96, ge=8, description="width of the vision tower")
    vision_mlp: int = Field(192, ge=8)
    vision_layers: int = Field(2, ge=1)
    vision_heads: int = Field(4, ge=1)
    text_size: int = Field(96, ge=8, description="width of the language model")
    text_mlp: int = Field(256, ge=8)
    text_layers: int = Field(2, ge=1)
    text_heads: int = Field(4, ge=1)
    text_kv_heads: int = Field(4, ge=1)
    rope_theta: float = Field(1e6, gt=1)


class Config(JobConfig):
    data: dict[str, DataConfig] = Field(
        min_length=1, description="data sets, by any name: shards with a weight, or conversations with their images"
    )
    start: Annotated[str | None, LAUNCH] = Field(
        None, description="a judge to go on from, fingerprinted by content; default: a new one of `model`'s shape"
    )
    questions: InputPath | None = Field(None, description="questions file; default: that of `start`, else the released")
    model: ModelShape = ModelShape()
    dtype: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="of matrix products, of weights that are not trained, and of the judge that comes out; trained "
        "weights are held in float32 and losses computed in it",
    )
    batch: BatchSettings = BatchSettings()
    loss: LossSettings = LossSettings()
    vision_lr: float | None = Field(None, ge=0, description="of the vision tower; null: train.lr, 0: frozen")
    projector_lr: float | None = Field(None, ge=0, description="of the projector; null: train.lr, 0: frozen")
    lora: LoraSettings = LoraSettings()
    eval_every: int = Field(0, ge=0, description="steps between two measurements on val; 0: at the end only")
    train: LoopSettings = LoopSettings()


def check(config: Config) -> None:
    """Data, checkpoint, questions and sizes, before anything is written."""
    shards = {name: data.shards for name, data in config.data.items() if data.shards is not None}
    folders = {folder: check_shards(folder, f"data.{name}.shards") for name, folder in shards.items()}
    for name, data in config.data.items():
        check_images(_conversations(data), f"data.{name}.images")
    said, kept = conversations(config)
    check_batch(config.batch, folders, has_conversations=bool(said))
    if config.eval_every and not kept and not any((folder / "val").is_dir() for folder in folders):
        raise ValueError("eval_every: nothing is held out to measure on; set eval_every=0")
    if config.start is not None:
        sizes = check_llava_folder(resolve(config.start))
        check_wording(questions_of(config), LlavaTokenizer(resolve(config.start)))
    else:
        _check_shape(config.model)
        sizes = sizes_of(config.model)
    check_adapters(config.lora, sizes)
    for name, folder in shards.items() if config.loss.cells else ():
        check_cells(folder, sizes.vision.grid, f"data.{name}")
    _check_questions(config)
    config.train.check()


def _check_questions(config: Config) -> None:
    """Every question that a batch asks has its wording."""
    batch = config.batch
    needed = ["outcome"] if batch.groups or batch.scenes else []
    needed += ["clarity", "potential"] if batch.groups and batch.previews else []
    needed += ["reason"] if config.loss.reason else []
    questions = questions_of(config)
    if missing := [question for question in needed if question not in questions.names]:
        raise ValueError(
            f"questions: {questions.where} has no {', '.join(missing)} (it has {', '.join(questions.names)}); add the "
            "wording, or set batch.previews=0 (clarity, potential) or loss.reason=0 (reason)"
        )


def _check_shape(shape: ModelShape) -> None:
    for width, heads in (("vision_size", "vision_heads"), ("text_size", "text_heads"), ("text_heads", "text_kv_heads")):
        if getattr(shape, width) % getattr(shape, heads):
            raise ValueError(
                f"model.{width}: {getattr(shape, width)} is not a multiple of model.{heads}={getattr(shape, heads)}"
            )
    if shape.patch_size > shape.image_size:
        raise ValueError(f"model.patch_size: {shape.patch_size} is larger than model.image_size={shape.image_size}")
    if shape.text_size // shape.text_heads % 2:
        raise ValueError(f"model.text_size: {shape.text_size} does not give {shape.text_heads} heads of an even width")


def inputs(config: Config, checked: None) -> dict[str, Path | str]:
    """Shards (by their sidecars), conversations, the checkpoint."""
    found: dict[str, Path | str] = {}
    for name, data in config.data.items():
        if data.shards is not None:
            for split in ("train", "val"):
                if (data.shards / split).is_dir():
                    found[f"data.{name}.{split}"] = content_digest(data.shards / split)
        elif data.conversations is not None:
            found[f"data.{name}.conversations"] = sha256_file(data.conversations)
    return found if config.start is None else found | {"start": resolve(config.start)}


def questions_of(config: Config) -> Questions:
    """The configured wording, else that of `start`, else the released one."""
    return read_questions(questions_file(config))


def questions_file(config: Config) -> Path | None:
    """Where the wording stands; None for the released one."""
    if config.questions is not None or config.start is None:
        return config.questions
    kept = resolve(config.start) / FILE
    return kept if kept.is_file() else None


def main(config: Config, world: World, checked: None) -> None:

    from genloop.training.adapters import add_adapters, merge_adapters, save_adapters
    from genloop.training.loop import train
    from genloop.training.objectives.judge import parts as judge_parts
    from genloop.training.objectives.judge.batches import JudgeBatches
    from genloop.training.reductions import largest_over_ranks
    from genloop.training.session import training_session

    if world.world_size > config.batch.num_items:
        raise ValueError(f"batch: {config.batch.num_items} items are too few for {world.world_size} ranks")
    with training_session(config.out, config.train, world) as device:
        model, tokenizer = build(config, device)
        rates = {"vision": config.vision_lr, "projector": config.projector_lr}
        lr_scale_of = judge_parts.lr_scale_of(rates, config.train.lr)
        adapted = add_adapters(model, config.lora, seed=config.seed, within=ADAPTED) if config.lora.rank else None
        judge_parts.choose_trained(model, lr_scale_of, adapted=adapted is not None)
        trainer, held_out = trainers(config, model, tokenizer)
        if config.train.zero_stage == 3 and world.world_size > 1:
            trainer = replace(trainer, agree=largest_over_ranks)
        questions = questions_of(config)
        if world.rank == 0 and not (any(held_out.sets) or held_out.conversations):
            log.warning("nothing is held out: what the judge is worth will not be measured")
        batches = JudgeBatches(
            trainer.sets,
            [data.weight for data in config.data.values() if data.shards is not None],
            trainer.conversations,
            trainer.branches,
            config.batch,
            seed=config.seed,
            reasons=config.loss.reason > 0,
        )

        def after_step(step: int) -> dict[str, float] | None:
            is_over = step == config.train.num_steps  # that is measured below
            return None if is_over else point_estimates(judged(held_out, questions, world), config.seed)

        objective = trainer.objective(batches, lr_scale_of)
        objective.after_every = config.eval_every
        objective.after_step = after_step  # type: ignore[method-assign]
        train(objective, config.train, config.out, world, seed=config.seed)
        if adapted is not None and world.rank == 0:
            save_adapters(adapted, config.out / "adapter")
        plain = merge_adapters(adapted) if adapted is not None else model
        held_out = replace(held_out, model=plain.to(trainer.dtype))  # what is saved is what is measured
        rows = judged(held_out, questions, world)
        if world.rank == 0:
            conclude(config, held_out.model, tokenizer, rows)


def build(config: Config, device: str) -> "tuple[Llava, LlavaTokenizer]":
    """The model that training starts from, that of `start` or a new one keyed by the seed, and its tokenizer."""
    import torch

    from genloop.models.llava.model import build_llava, load_llava
    from genloop.training.initialization import scale_judge

    dtype = getattr(torch, config.dtype)
    if config.start is not None:
        folder = resolve(config.start)
        return load_llava(folder, dtype=dtype, device=device), LlavaTokenizer(folder)
    tokenizer = _world_tokenizer(config)
    sizes = replace(
        sizes_of(config.model, num_words=tokenizer.num_tokens), image_token_index=tokenizer.word_id("<image>")
    )
    model = build_llava(sizes, seed=config.seed, dtype=dtype, device=device)
    scale_judge(model, seed=config.seed)
    return model, tokenizer


def sizes_of(shape: ModelShape, *, num_words: int = 1) -> LlavaConfig:
    """The sizes of a new model with a vocabulary of `num_words`."""
    return LlavaConfig(
        vision=VisionDims(
            hidden_size=shape.vision_size,
            intermediate_size=shape.vision_mlp,
            num_hidden_layers=shape.vision_layers,
            num_attention_heads=shape.vision_heads,
            image_size=shape.image_size,
            patch_size=shape.patch_size,
        ),
        text=TextDims(
            hidden_size=shape.text_size,
            intermediate_size=shape.text_mlp,
            num_hidden_layers=shape.text_layers,
            num_attention_heads=shape.text_heads,
            num_key_value_heads=shape.text_kv_heads,
            vocab_size=num_words,
            max_position_embeddings=1024,
        ),
        rope_theta=shape.rope_theta,
    )


def _world_tokenizer(config: Config) -> "LlavaTokenizer":
    """One token for each word of the embedded world and of the questions, kept in RUN/tokenizer."""
    from genloop.shapes.judge_text import judge_tokenizer_files

    questions = questions_of(config)
    chat = (questions.chat.system, questions.chat.user, questions.chat.assistant, questions.chat.end)
    folder = config.out / "tokenizer"
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in judge_tokenizer_files([*questions.wording.values(), *chat]).items():
        write_atomic(folder / name, content)  # the same bytes on every rank
    return LlavaTokenizer(folder)


def trainers(config: Config, model: "Llava", tokenizer: "LlavaTokenizer") -> "tuple[JudgeTrainer, JudgeTrainer]":
    """The training side, and the one of the examples that are held out."""
    import torch

    from genloop.data.judge.dataset import read_judge_set
    from genloop.models.llava.model import llava_config
    from genloop.rewards.llava.pixels import pad_tile
    from genloop.training.objectives.judge.branches import Branches
    from genloop.training.objectives.judge.objective import JudgeTrainer

    folders = [data.shards for data in config.data.values() if data.shards is not None]
    train_sets = [read_judge_set(folder / "train") for folder in folders]
    val_sets = [read_judge_set(folder / "val") for folder in folders if (folder / "val").is_dir()]
    names = next((list(data.cell_names.values()) for data in train_sets if data.cell_names), [])
    if any(list(data.cell_names.values()) != names for data in (*train_sets, *val_sets) if data.cell_names):
        raise ValueError("data: the shards name their cells differently; train on one world")
    flat = [name for plane in names for name in plane] if config.loss.names else []
    size = llava_config(model).vision.image_size
    said, kept = conversations(config)
    branches = Branches(questions_of(config), tokenizer, flat)
    dtype = getattr(torch, config.dtype)
    common = (branches, config.loss, lambda image: pad_tile(image, size), names, tokenizer.encode, dtype)
    return JudgeTrainer(model, train_sets, said, *common), JudgeTrainer(model, val_sets, kept, *common)


def conversations(config: Config) -> tuple[list[Conversation], list[Conversation]]:
    """Those to train on and those that are held out: split by the prompt, which the questions tell."""
    questions = questions_of(config)
    sides: dict[str, list[Conversation]] = {split: [] for split in SPLITS}
    for data in config.data.values():
        for said in _conversations(data):
            sides[split_of(_asked(questions, said, 0)[1], config.seed, data.val_share)].append(said)
    return sides["train"], sides["val"]


def _conversations(data: DataConfig) -> list[Conversation]:
    if data.conversations is None or data.images is None:
        return []
    return read_conversations(data.conversations, data.images)


def _asked(questions: Questions, said: Conversation, turn: int) -> tuple[str, str]:
    """The name of what a turn asks, and the prompt; words of its own where it is none of the questions."""
    first = questions.recognize(said.turns[0][0]) or ("words", said.turns[0][0])
    name, _ = questions.recognize(said.turns[turn][0]) or ("words", "")
    return name, first[1]


def judged(trainer: "JudgeTrainer", questions: Questions, world: World) -> list[HeldOutAnswer]:
    """Every held-out answer; all ranks get all of them."""
    rows = []
    for said, found in zip(trainer.conversations, trainer.said_margins(world).tolist(), strict=True):
        for turn, (_, answer) in enumerate(said.turns):
            if found[turn] == found[turn]:
                name, prompt = _asked(questions, said, turn)
                step = PREVIEW if name in ("clarity", "potential") else FINAL
                rows.append(HeldOutAnswer(name, step, "", prompt, float(says_yes(answer) is True), found[turn]))
    for data, margins in zip(trainer.sets, trainer.all_margins(world), strict=True):
        for example, labels, found in zip(data.examples, data.labels.tolist(), margins.tolist(), strict=True):
            is_scene = example.source == "scenes"
            step = example.moment
            for question, label, margin in zip(QUESTIONS, labels, found, strict=True):
                if margin == margin:  # asked
                    name = "scenes" if is_scene and question == "outcome" else question
                    rows.append(HeldOutAnswer(name, step, example.prompt.tag or "", example.prompt.text, label, margin))
    return rows


def conclude(config: Config, model: "Llava", tokenizer: "LlavaTokenizer", rows: Sequence[HeldOutAnswer]) -> None:
    """Write the checkpoint and what it is worth."""
    from genloop.models.llava.model import save_llava
    from genloop.report.figures.reliability import draw

    summary = summarize_judge(rows, config.seed)
    fitted = {question: row for question, row in summary["calibration"].items() if question in QUESTIONS}
    calibration = {question: {"a": row["a"], "b": row["b"]} for question, row in fitted.items() if row["a"] > 0}
    files: dict[str, Any] = {**tokenizer.files(), "calibration.json": calibration}
    wording = questions_file(config)
    if wording is not None:
        files[FILE] = wording.read_bytes()
    save_llava(model, config.out / "judge", files)
    write_json(config.out / "summary.json", summary)
    table = format_judge(summary)
    write_atomic(config.out / "table.md", table.encode())
    write_atomic(config.out / "reliability.svg", draw(summary["overall"]).encode())
    print(table, end="", flush=True)


if __name__ == "__main__":
    run(main, Config)
