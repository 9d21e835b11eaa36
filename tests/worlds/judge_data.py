"""What tests of judge training share: a small judge, drawn scenes, and made-up paths of generated images."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from genloop.data.images import encode_png
from genloop.data.judge.conversations import Conversation
from genloop.data.judge.dataset import JudgeSet, read_judge_set
from genloop.data.judge.examples import JudgeExample, to_sample
from genloop.data.shards import write_shard
from genloop.models.llava.config import LlavaConfig, TextDims, VisionDims
from genloop.models.llava.load import build_llava
from genloop.models.llava.model import Llava, llava_config
from genloop.models.llava.pixels import pad_tile
from genloop.models.llava.text import LlavaTokenizer
from genloop.rewards.questions import Questions, read_questions
from genloop.shapes.judge_text import judge_tokenizer_files
from genloop.shapes.prompts import pool
from genloop.shapes.render import render
from genloop.shapes.scenes import Thing, scene_for
from genloop.training.initialization import scale_judge
from genloop.training.objectives.judge.batches import read_image
from genloop.training.objectives.judge.branches import Branches
from genloop.training.objectives.judge.data import JudgeData
from genloop.training.objectives.judge.held_out import HeldOut
from genloop.training.objectives.judge.items import Item, ItemPlans
from genloop.training.objectives.judge.objective import JudgeObjective
from genloop.training.objectives.judge.settings import BatchSettings, LossSettings
from genloop.training.task import Loss, Plan
from tests.runs import ROOT

SCENES = ROOT / "configs/data/shapes/judge"
QUESTIONS_FILE = ROOT / "configs/prompts/shapes_judge/questions.yaml"
STEPS = (4, 9, 18)
MIX = BatchSettings(groups=3, paths=3, previews=2, scenes=4)
TASKS = ("single_object", "colors", "position")


def wording(**more: str) -> Questions:
    """The shipped questions, some of them replaced."""
    questions = read_questions(QUESTIONS_FILE)
    return Questions({**questions.wording, **more}, questions.chat, "here")


def tokenizer(folder: Path, questions: Questions) -> LlavaTokenizer:
    """The world's words and those of the questions."""
    chat = questions.chat
    texts = [*questions.wording.values(), chat.system, chat.user, chat.assistant, chat.end]
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in judge_tokenizer_files(texts).items():
        (folder / name).write_bytes(content)
    return LlavaTokenizer(folder)


def judge(words: LlavaTokenizer, *, seed: int = 0) -> Llava:
    """A very small LLaVA-OneVision for 24 x 24 pixels."""
    config = LlavaConfig(
        vision=VisionDims(16, 32, 1, 2, 24, 4),
        text=TextDims(16, 32, 2, 2, 1, words.num_tokens, 512),
        image_token_index=words.word_id("<image>"),
    )
    model = build_llava(config, seed=seed)
    scale_judge(model, seed=seed)
    with torch.no_grad():
        model.lm_head.weight.mul_(10)  # answers that differ
    return model


def paths(folder: Path, *, sentences: int = 3, num_paths: int = 4, potential: float | None = None) -> JudgeSet:
    """Paths of some sentences: every image another scene, every second path right; `potential` of all previews."""
    rng = np.random.default_rng(0)
    samples = []
    for index, tag in enumerate(TASKS):
        for number in range(sentences):
            prompt = pool("train", tag)[number]
            for path in range(num_paths):
                for step in STEPS:
                    png = encode_png(render([(*scene_for(prompt, rng), Thing("moon", "black", 4, 4))])[0])
                    right = float(path % 2)
                    share = right if potential is None else potential
                    asked = {"outcome": right} if step == 18 else {"clarity": 0.5, "potential": share}
                    place = (number, path, step, 18)
                    key = f"{index}-{number}-{path}-{step}"
                    samples.append(to_sample(JudgeExample(key, "generate", prompt, *place, asked, "no ring"), png))
    write_shard(folder / "00000.tar", samples)
    return read_judge_set(folder)


def both_splits(folder: Path) -> Path:
    """`paths` for training and for validation, as train_judge reads them."""
    for split in ("train", "val"):
        paths(folder / split)
    return folder


def objective(
    folder: Path,
    *sets: JudgeSet,
    questions: Questions | None = None,
    mix: BatchSettings = MIX,
    seed: int = 0,
    set_weights: Sequence[float] = (),
    conversations: Sequence[Conversation] = (),
    **weights: float,
) -> JudgeObjective:
    """A fresh judge that learns from these data sets; `weights` are those of the loss."""
    questions = questions or wording()
    words = tokenizer(folder, questions)
    data, model, terms = JudgeData(sets, conversations), judge(words), LossSettings(**weights)
    branches = Branches(questions, words, [name for plane in data.cell_names for name in plane])
    chances = set_weights or [1.0] * len(sets)
    plans = ItemPlans(data, chances, branches, mix, seed=seed, reasons=terms.reason > 0, cells=terms.cells > 0)
    size = llava_config(model).vision.image_size
    return JudgeObjective(model, plans, terms, lambda image: pad_tile(image, size))


def loss(here: JudgeObjective, plan: Plan[Item], numbers: Iterable[int]) -> Loss:
    """The loss of some items of a plan."""
    return here.loss(here.load([plan.items[number] for number in numbers], plan))


def pixels(here: JudgeObjective, images: Iterable[tuple[int, int]]) -> Tensor:
    """(data set, image) pairs -> (I, 3, S, S)."""
    return torch.stack([here.pixels_of(read_image(here.plans.data, image)) for image in images])


def held_out(here: JudgeObjective) -> HeldOut:
    """The data of an objective as if it were held out."""
    questions = here.plans.branches.wording
    assert isinstance(questions, Questions)
    return HeldOut(here.plans.data, here.plans.branches, here.pixels_of, questions.recognize)
