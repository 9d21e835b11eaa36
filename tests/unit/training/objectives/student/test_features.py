"""Distillation of outputs and features: nothing is lost between equals, smaller students are compared by layers."""

from pathlib import Path

import pytest
import torch

from tests.runs import ROOT
from tests.worlds.tiny_student import BASE, batch_of, build


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_a_student_equal_to_its_teacher_has_no_loss(tmp_path: Path) -> None:
    words = (f"features.teacher={BASE}", "features.mid=true", "features.task_weight=0")
    objective = build("tiny_features", tmp_path, *words)
    losses, parts = objective.row_losses(batch_of(objective))
    assert torch.equal(losses, torch.zeros(4)) and parts["task"].min() > 0
    assert not parts["output"].any() and not parts["features"].any()


def test_a_smaller_student_is_compared_where_both_have_self_attention(tmp_path: Path) -> None:
    objective = build("tiny_features", tmp_path)
    assert objective.model.unet.mid_block is None and objective.teacher.unet.mid_block is not None
    compared = set(objective._pairs)
    assert compared and not any("mid_block" in name for name in compared)
    losses, parts = objective.row_losses(batch_of(objective))
    assert parts["output"].min() > 0 and parts["features"].min() > 0
    losses.sum().backward()
    assert all(parameter.grad is not None for parameter in objective.model.unet.parameters())
    assert all(parameter.grad is None for parameter in objective.teacher.unet.parameters())
