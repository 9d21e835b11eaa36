"""Train a judge: a LLaVA-OneVision that answers yes or no about images.

    genloop run train_judge tiny out=runs/judge-tiny
    genloop run train_judge shapes out=runs/judge data.paths.shards=runs/judge-data/shards --procs 2
    torchrun --nproc-per-node 8 -m jobs.train_judge llava_ov out=runs/judge train.zero_stage=3

Reads   shards of examples (build_judge_data writes them: DIR/train, DIR/val) and published LLaVA conversations
        (JSON); a checkpoint to start from, or sizes of a new model.
Writes  RUN/judge, a checkpoint in the public layout with its tokenizer, questions.yaml and calibration.json, which
        judge.kind=llava loads; RUN/checkpoints/step-*, to resume from; RUN/metrics.jsonl; at the end
        RUN/summary.json and RUN/table.md: accuracy, AUC pooled and within prompts, calibration by question, step
        and task, all on val and on the conversations of held-out prompts; RUN/reliability.svg and .png: the share
        of yes against P(yes); with lora.rank RUN/adapter, the adapters alone, as peft reads them; RUN/judge has
        them merged.
Resume  the same command goes on from the newest checkpoint, also with another number of ranks. Every step's batch
        follows from the config; one process gives the same bits with and without interruption.
"""

import logging
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from ckpts.resolve import resolve
from genloop import terminal
from genloop.bounds import TotalOrNone, Weight
from genloop.config import LAUNCH, InputPath, JobConfig
from genloop.data.judge.conversations import Conversation, check_images, read_conversations
from genloop.data.judge.examples import QUESTIONS
from genloop.distributed import World
from genloop.job import run
from genloop.meanings import EVAL_EVERY, START_OR_NEW
from genloop.models.llava.config import LlavaConfig, check_llava_folder
from genloop.models.llava.text import LlavaTokenizer
from genloop.planning import Footprint
from genloop.reading import read_bytes
from genloop.records import HeldOutAnswer
from genloop.rewards.questions import FILE, Questions, check_wording, read_questions
from genloop.rundir import write_atomic, write_json
from genloop.stats.judges.summary import format_judge, point_estimates, summarize_judge
from genloop.training.guards.settings import LineGuardSettings
from genloop.training.objectives.judge import checks
from genloop.training.objectives.judge.data import JudgeShards, open_shards, read_sides, split_conversations
from genloop.training.objectives.judge.settings import BatchSettings, DataConfig, LossSettings, ModelShape
from genloop.training.settings import LoopSettings, LoraSettings

if TYPE_CHECKING:
    from genloop.models.llava.model import Llava
    from genloop.training.objectives.judge.held_out import HeldOut
    from genloop.training.objectives.judge.objective import JudgeObjective

KIND = "collective"
log = logging.getLogger(__name__)


class Config(JobConfig):
    data: dict[str, DataConfig] = Field(
        min_length=1, description="data sets, by any name: shards with a weight, or conversations with their images"
    )
    start: Annotated[str | None, LAUNCH] = Field(None, description=START_OR_NEW)
    questions: InputPath | None = Field(
        None, description="questions file; null: that of `start`, else the released one"
    )
    model: ModelShape = ModelShape()
    saved_dtype: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="of the saved judge, which is measured as it is saved; under train.precision bf16 or fp16 also of "
        "frozen weights in training. bfloat16 sets train.precision=bf16 where that is not given",
    )
    batch: BatchSettings = BatchSettings()
    loss: LossSettings = LossSettings()
    vision_lr: Weight | None = Field(None, description="of the vision tower; null: train.lr, 0: frozen")
    projector_lr: Weight | None = Field(None, description="of the projector; null: train.lr, 0: frozen")
    lora: LoraSettings = LoraSettings()
    eval_every: TotalOrNone = Field(0, description=EVAL_EVERY)
    train: LoopSettings = LoopSettings()
    guards: LineGuardSettings = LineGuardSettings()

    @model_validator(mode="after")
    def _train_in_the_dtype_of_the_judge(self) -> "Config":
        """Presets with `saved_dtype: bfloat16` compute in it, as before `train.precision` was a key."""
        if self.saved_dtype == "float32" or "precision" in self.train.model_fields_set:
            return self
        return self.model_copy(update={"train": self.train.model_copy(update={"precision": "bf16"})})


@dataclass(frozen=True)
class Checked:
    """What `check` read: questions and their file, the checkpoint to start from, shards, sides of conversations."""

    questions: Questions
    questions_file: Path | None  # None: the released wording
    start: Path | None
    start_tokenizer: LlavaTokenizer | None
    shards: dict[str, JudgeShards]  # by the name of the data set
    conversations: dict[str, list[Conversation]]  # train, val


def check(config: Config) -> Checked:
    """Data, checkpoint, questions and sizes, before anything is written."""
    start = None if config.start is None else resolve(config.start)
    sizes = _sizes(config, start)
    checked = _read(config, start)
    _check_data(config, checked, sizes)
    if checked.start_tokenizer is not None:
        check_wording(checked.questions, checked.start_tokenizer)
    checks.check_questions(config.batch, config.loss, checked.questions.names, checked.questions.where)
    config.train.check()
    return checked


def _read(config: Config, start: Path | None) -> Checked:
    wording = config.questions
    if wording is None and start is not None and (start / FILE).is_file():
        wording = start / FILE
    questions = read_questions(wording)
    shards, files = {}, []
    for name, data in config.data.items():
        if data.shards is not None:
            shards[name] = open_shards(data.shards, f"data.{name}.shards", data.weight)
        if data.conversations is not None and data.images is not None:
            files.append((read_conversations(data.conversations, data.images), data.val_share))
            check_images(files[-1][0], f"data.{name}.images")
    sides = split_conversations(files, questions.recognize, config.seed)
    tokenizer = None if start is None else LlavaTokenizer(start)
    return Checked(questions, wording, start, tokenizer, shards, sides)


def _sizes(config: Config, start: Path | None) -> LlavaConfig:
    """Of `start` or of a new model, whose vocabulary is not known yet."""
    if start is not None:
        return check_llava_folder(start)
    config.model.check()
    return config.model.sizes()


def _check_data(config: Config, checked: Checked, sizes: LlavaConfig) -> None:
    """Shards and conversations fill a batch and fit the model."""
    sets, conversations = checked.shards.values(), checked.conversations
    checks.check_batch(config.batch, sets, has_conversations=bool(conversations["train"]))
    if config.eval_every and not conversations["val"] and all(one.val is None for one in sets):
        raise ValueError("eval_every: nothing is held out to measure on; set eval_every=0")
    for name, one in checked.shards.items() if config.loss.cells else ():
        checks.check_cells(one, sizes.vision.grid, f"data.{name}")
    checks.check_adapters(config.lora, sizes)


def inputs(config: Config, checked: Checked) -> dict[str, Path | str]:
    """Shards (by their sidecars), conversations, the checkpoint."""
    found: dict[str, Path | str] = {} if checked.start is None else {"start": checked.start}
    for name, data in config.data.items():
        if data.conversations is not None:
            found[f"data.{name}.conversations"] = data.conversations
    for name, one in checked.shards.items():
        found[f"data.{name}.train"] = one.train.digest()
        if one.val is not None:
            found[f"data.{name}.val"] = one.val.digest()
    return found


def footprint(config: Config, checked: Checked, *, device: str, ranks: int) -> Footprint:
    """Two steps on the meta device; what is held out is measured in smaller passes."""
    from genloop.training.footprint import training_footprint

    def built() -> "JudgeObjective":
        return prepared_objective(config, checked, *build(config, checked, "meta"), World())[0]

    return training_footprint(built, config.train, seed=config.seed, device=device, ranks=ranks)


def main(config: Config, world: World, checked: Checked) -> None:
    import torch

    from genloop.training import parts
    from genloop.training.adapters import merge_adapters, save_adapters
    from genloop.training.guards.guard import Guard
    from genloop.training.loop import train
    from genloop.training.session import training_session

    with training_session(config.out, config.train, world) as device:
        model, tokenizer = build(config, checked, device)
        objective, held_out, adapted = prepared_objective(config, checked, model, tokenizer, world)
        if world.rank == 0 and held_out.data.is_empty:
            log.warning("nothing is held out: what the judge is worth will not be measured")
        objective.guard = Guard(config.guards, config.out, world)
        train(objective, config.train, config.out, world, seed=config.seed)
        if adapted is not None and world.rank == 0:
            save_adapters(adapted, config.out / "adapter")
        judge = merge_adapters(adapted) if adapted is not None else model
        parts.cast_parameters(judge, getattr(torch, config.saved_dtype))  # what is measured is what is saved
        answers = held_out.answers(judge, world)
        if world.rank == 0:
            conclude(config, checked, judge, tokenizer, answers)


def prepared_objective(
    config: Config, checked: Checked, model: "Llava", tokenizer: LlavaTokenizer, world: World
) -> "tuple[JudgeObjective, HeldOut, Any]":
    """`objective_of`, with the adapters of its model when it has some; all weights that are trained want gradients."""
    from genloop.training import parts
    from genloop.training.adapters import add_adapters

    lora = config.lora
    adapted = add_adapters(model, lora, seed=config.seed, within=checks.ADAPTED) if lora.rank else None
    objective, held_out = objective_of(config, checked, model, tokenizer, world)
    parts.choose_trained(model, objective.lr_scale_of, adapted=adapted is not None)
    return objective, held_out, adapted


def build(config: Config, checked: Checked, device: str) -> "tuple[Llava, LlavaTokenizer]":
    """The model that training starts from, that of `start` or a new one keyed by the seed, and its tokenizer."""
    import torch

    from genloop.models.llava.load import build_llava, load_llava
    from genloop.training.initialization import scale_judge

    dtype = torch.float32 if config.train.precision == "fp32" else getattr(torch, config.saved_dtype)
    if checked.start is not None and checked.start_tokenizer is not None:
        return load_llava(checked.start, dtype=dtype, device=device), checked.start_tokenizer
    if device == "meta":  # a plan writes nothing into the run
        with tempfile.TemporaryDirectory() as place:
            tokenizer = _world_tokenizer(Path(place), checked.questions)
    else:
        tokenizer = _world_tokenizer(config.out / "tokenizer", checked.questions)
    sizes = config.model.sizes(num_words=tokenizer.num_tokens, image_word=tokenizer.word_id("<image>"))
    model = build_llava(sizes, seed=config.seed, dtype=dtype, device=device)
    scale_judge(model, seed=config.seed)
    return model, tokenizer


def _world_tokenizer(folder: Path, questions: Questions) -> LlavaTokenizer:
    """One token for each word of the embedded world and of the questions, written to a folder."""
    from genloop.shapes.judge_text import judge_tokenizer_files

    texts = [*questions.wording.values(), *asdict(questions.chat).values()]
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in judge_tokenizer_files(texts).items():
        write_atomic(folder / name, content)  # the same bytes on every rank
    return LlavaTokenizer(folder)


def objective_of(
    config: Config, checked: Checked, model: "Llava", tokenizer: LlavaTokenizer, world: World
) -> "tuple[JudgeObjective, HeldOut]":
    """What is trained on, and what it is measured on."""
    from genloop.models.llava.model import llava_config
    from genloop.models.llava.pixels import pad_tile
    from genloop.training.objectives.judge.branches import Branches
    from genloop.training.objectives.judge.held_out import HeldOut
    from genloop.training.objectives.judge.items import ItemPlans
    from genloop.training.objectives.judge.objective import JudgeObjective
    from genloop.training.parts import lr_scale_of
    from genloop.training.precision import Precision
    from genloop.training.reductions import largest_over_ranks

    sets = list(checked.shards.values())
    train, val = read_sides(sets, checked.conversations)
    names = [name for plane in train.cell_names for name in plane] if config.loss.names else []
    branches, size = Branches(checked.questions, tokenizer, names), llava_config(model).vision.image_size
    held_out = HeldOut(val, branches, lambda image: pad_tile(image, size), checked.questions.recognize)

    def evaluate(step: int) -> dict[str, float] | None:
        if step == config.train.num_steps:
            return None  # measured as it is saved
        with Precision(config.train.precision, model.device).autocast():
            return point_estimates(held_out.answers(model, world), config.seed)

    reasons, cells = config.loss.reason > 0, config.loss.cells > 0
    weights = [one.weight for one in sets]
    is_sharded = config.train.zero_stage == 3 and world.world_size > 1
    objective = JudgeObjective(
        model,
        ItemPlans(train, weights, branches, config.batch, seed=config.seed, reasons=reasons, cells=cells),
        config.loss,
        held_out.pixels_of,
        max_passes_over_ranks=largest_over_ranks if is_sharded else None,
    )
    objective.evaluate, objective.after_every = evaluate, config.eval_every
    rates = {"vision": config.vision_lr, "projector": config.projector_lr}
    objective.lr_scale_of = lr_scale_of(rates, config.train.lr)
    return objective, held_out


def conclude(
    config: Config, checked: Checked, judge: "Llava", tokenizer: LlavaTokenizer, answers: Sequence[HeldOutAnswer]
) -> None:
    """Write the checkpoint and what it is worth."""
    from genloop.models.llava.load import save_llava
    from genloop.report.figures.canvas import write_figure
    from genloop.report.figures.reliability import reliability_svg

    summary = summarize_judge(answers, config.seed)
    fitted = {question: row for question, row in summary["calibration"].items() if question in QUESTIONS}
    calibration = {question: {"a": row["a"], "b": row["b"]} for question, row in fitted.items() if row["a"] > 0}
    files: dict[str, Any] = {**tokenizer.files(), "calibration.json": calibration}
    if checked.questions_file is not None:
        files[FILE] = read_bytes(checked.questions_file)
    save_llava(judge, config.out / "judge", files)
    write_json(config.out / "summary.json", summary)
    table = format_judge(summary)
    write_atomic(config.out / "table.md", table.encode())
    write_figure(config.out / "reliability", reliability_svg(summary["overall"]))
    terminal.out_markdown(table)


if __name__ == "__main__":
    run(main, Config)
