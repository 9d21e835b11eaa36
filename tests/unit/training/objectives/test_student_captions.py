"""Captions of a student: read in one pass as they are one by one, dealt out to other images on demand."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from genloop.distributed import World
from genloop.job import parse
from genloop.models.diffusion.config import check_diffusion_folder
from genloop.models.diffusion.load import load_diffusion
from genloop.training.objectives.student.base import StudentObjective
from genloop.training.student.start import objective_of
from jobs import train_student
from tests.runs import ROOT
from tests.worlds.tiny_diffusion import write_pipeline


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def objective(out: Path, *words: str) -> StudentObjective:
    few = ["tiny", "parts=[unet,text_encoder]", "weights=full", "drop_captions=0", f"out={out}", "train.batch_size=16"]
    config = parse(train_student, [*few, *words])
    return objective_of(config, train_student.check(config), World(), "cpu")[0]


def spoken(student: StudentObjective, steps: Sequence[int]) -> list[str | None]:
    """The captions of some steps, in the order of their images."""
    found = [(item.position, item) for step in steps for item in student.plan(step).items]
    items = [item for _, item in sorted(found, key=lambda pair: pair[0])]
    return list(student.load(items, student.plan(1)).captions)


def test_shuffled_captions_are_the_same_ones_on_other_images(tmp_path: Path) -> None:
    plain, control = objective(tmp_path), objective(tmp_path, "shuffle_captions=true")
    epoch = range(1, 5)  # 64 samples
    own, dealt = spoken(plain, epoch), spoken(control, epoch)
    assert len(own) == 64 and sorted(map(str, own)) == sorted(map(str, dealt))
    assert sum(a == b for a, b in zip(own, dealt)) < 16
    assert spoken(control, epoch) == dealt != spoken(objective(tmp_path, "shuffle_captions=true", "seed=1"), epoch)
    batches = [student.load(student.plan(1).items, student.plan(1)) for student in (plain, control)]
    assert torch.equal(batches[0].latents, batches[1].latents) and torch.equal(batches[0].noise, batches[1].noise)


@pytest.mark.parametrize("is_xl", [False, True])
def test_a_batch_of_texts_is_read_as_its_texts_are(tmp_path: Path, is_xl: bool) -> None:
    base = check_diffusion_folder(write_pipeline(tmp_path / "sd", xl=is_xl))
    denoiser = load_diffusion(base, grid=base.grid(None, None))
    texts = ["a photo of a ring", None, "a photo of two stars"]
    batch, each = denoiser.read(texts), [denoiser.encode(text) for text in texts]
    torch.testing.assert_close(batch.embeddings, torch.cat([one.embeddings for one in each]))
    assert is_xl == (batch.pooled is not None)
    if batch.pooled is not None:
        torch.testing.assert_close(batch.pooled, torch.cat([one.pooled for one in each if one.pooled is not None]))
        assert not batch.embeddings[1].any() and batch.embeddings[0].any()
