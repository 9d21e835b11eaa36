"""Latent consistency distillation is the arithmetic of its paper."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from genloop.registry import require
from genloop.training.objectives.student.lcm import boundary, huber
from tests.runs import ROOT
from tests.worlds.tiny_student import batch_of, build, disturb, plain_unet


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def ask(unet: Any, x: Tensor, time: int, text: Tensor) -> Tensor:
    found: Tensor = unet(x[None].float(), torch.tensor([time]), encoder_hidden_states=text).sample[0].double()
    return found


def loss_of_the_paper(student: Any, teacher: Any, kept: Tensor, rows: Any, row: int) -> Tensor:
    """Luo et al. 2023, algorithm 1: x_s = x_t + (1 + w) Psi(x_t, c) - w Psi(x_t, no text), Psi the DDIM increment."""
    t = (int(rows.timesteps[row]) // 50 + 1) * 50 - 1
    s = max(t - 50, 0)
    (alpha, sigma), (alpha_s, sigma_s) = ((kept[time].sqrt(), (1 - kept[time]).sqrt()) for time in (t, s))
    x = alpha * rows.latents[row].double() + sigma * rows.noise[row].double()
    text = rows.embeddings[row][None]

    def psi(condition: Tensor) -> Tensor:
        noise = ask(teacher, x, t, condition)
        return alpha_s * (x - sigma * noise) / alpha + sigma_s * noise - x

    def consistent(x: Tensor, time: int, alpha: Tensor, sigma: Tensor) -> Tensor:
        clean, scaled = (x - sigma * ask(student, x, time, text)) / alpha, 10.0 * time
        return 0.25 / (scaled**2 + 0.25) * x + scaled / (scaled**2 + 0.25) ** 0.5 * clean

    w = float(rows.guidance[row]) - 1
    reached = x + (1 + w) * psi(text) - w * psi(rows.without[row][None])
    gap = consistent(x, t, alpha, sigma) - consistent(reached, s, alpha_s, sigma_s)
    return ((gap**2 + 1e-6).sqrt() - 1e-3).mean()


def test_losses_are_those_of_the_paper(tmp_path: Path) -> None:
    objective, teacher = build("tiny_lcm", tmp_path), plain_unet()
    disturb(objective)
    rows = batch_of(objective)
    kept = require("diffusers").DDPMScheduler.from_config(objective.model.base.scheduler).alphas_cumprod.double()
    with torch.no_grad():
        student = objective.model.unet
        expected = [loss_of_the_paper(student, teacher, kept, rows, row) for row in range(len(rows.latents))]
    found, parts = objective.row_losses(rows)
    torch.testing.assert_close(found.detach().double(), torch.stack(expected), rtol=1e-3, atol=1e-5)
    assert found.requires_grad and not parts["teacher_gap"].requires_grad


def test_boundary_conditions_are_those_that_images_are_drawn_with() -> None:
    scheduler = require("diffusers").LCMScheduler()
    for time in (0, 1, 19, 999):
        skip, out = boundary(torch.tensor([time]), 10.0)
        wanted = scheduler.get_scalings_for_boundary_condition_discrete(torch.tensor(float(time)))
        assert [float(skip), float(out)] == pytest.approx([float(value) for value in wanted], rel=1e-6)
    assert [float(value) for value in boundary(torch.tensor([0]), 10.0)] == [1.0, 0.0]


def test_huber_is_a_square_below_its_width_and_a_distance_above() -> None:
    small, large = (torch.full((1, 1, 1, 1), value) for value in (1e-5, 10.0))
    assert float(huber(small, 1e-2)) == pytest.approx(1e-10 / 2e-2, rel=0.2)
    assert float(huber(large, 1e-2)) == pytest.approx(10.0, rel=2e-3)


def test_guidance_is_drawn_from_its_range_and_keyed_by_step_and_row(tmp_path: Path) -> None:
    objective = build("tiny_lcm", tmp_path)
    first, again, other = (batch_of(objective, step).guidance for step in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other) and len(first.unique()) == len(first)
    assert all(2 <= value <= 4 for value in first.tolist())
    plan = objective.plan(1)
    assert torch.equal(objective.load(plan.items[2:], plan).guidance, first[2:])


def test_intervals_end_at_the_timesteps_of_the_solver(tmp_path: Path) -> None:
    start, end = build("tiny_lcm", tmp_path, "lcm.solver_steps=7").steps_of(torch.tensor([0, 141, 142, 993, 999]))
    assert start.tolist() == [141, 141, 283, 993, 993] and end.tolist() == [0, 0, 141, 851, 851]
