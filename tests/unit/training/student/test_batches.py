"""What a step of a student's training reads: each row its own latent, caption and noise."""

from pathlib import Path

import numpy as np
import pytest
import torch

from genloop.data.latents import cache
from genloop.distributed import World
from genloop.job import parse
from genloop.models.diffusion.student import encode_pixels
from genloop.training.objectives.student.base import StudentObjective
from genloop.training.student import start
from jobs import train_student
from tests.runs import ROOT
from tests.worlds.captioned_images import write_images

SIZES = [(24, 24), (40, 24), (60, 31), (24, 40)] * 3


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"), SIZES)


def objective_of(out: Path, shards: Path, *words: str) -> StudentObjective:
    config = parse(train_student, ["tiny", f"out={out}", f"shards={shards}", "train.batch_size=3", *words])
    return start.objective_of(config, train_student.check(config), World(), "cpu")[0]


def test_shuffled_rows_keep_their_own_latent_and_caption(
    tmp_path: Path, shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(cache, "CHUNK", 5)
    objective = objective_of(tmp_path, shards, "drop_captions=0.3")
    examples, denoiser, dropped = objective.data.examples, objective.model.denoiser, 0
    for step in range(1, 9):
        plan = objective.plan(step)
        batch = objective.load(plan.items, plan)
        for place, item in enumerate(plan.items):
            mean, _ = encode_pixels(denoiser, examples.pixels(item.position))
            assert np.array_equal(batch.latents[place].numpy(), mean)
            caption = None if item.is_dropped else f"picture {item.position}"
            assert batch.embeddings is not None
            assert torch.equal(batch.embeddings[place], denoiser.encode(caption).embeddings[0])
            dropped += item.is_dropped
    assert dropped


def test_noise_and_timesteps_are_keyed_by_seed_step_and_row(
    tmp_path: Path, shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    objective = objective_of(tmp_path, shards)
    other = objective_of(tmp_path, shards, "seed=1")
    plan = objective.plan(3)
    whole = objective.load(plan.items, plan)
    alone = [objective.load([item], plan) for item in plan.items]
    assert torch.equal(whole.noise, torch.cat([one.noise for one in alone]))
    assert torch.equal(whole.timesteps, torch.cat([one.timesteps for one in alone]))
    assert objective.plan(3).items == plan.items
    assert other.plan(3).items != plan.items
    drawn = [objective.load(objective.plan(step).items, plan).noise.flatten()[0].item() for step in range(1, 6)]
    assert len({*drawn, other.load(plan.items, plan).noise.flatten()[0].item()}) == 6


def test_a_draw_of_a_latent_differs_from_step_to_step_around_its_mode(
    tmp_path: Path, shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    objective = objective_of(tmp_path, shards, "latents=sample")
    mean, spread = objective.data.latent(0)
    assert spread is not None and spread.min() > 0
    seen = []
    for step in range(1, 40):
        plan = objective.plan(step)
        rows = [item for item in plan.items if item.position == 0]
        seen += [(objective.load([row], plan).latents[0] - mean) / spread for row in rows]
    drawn = torch.stack(seen)
    assert abs(float(drawn.mean())) < 0.2 and 0.8 < float(drawn.std()) < 1.2
    assert not torch.equal(drawn[0], drawn[1])
