"""Solvers against a world whose exact paths are known."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch

from genloop.records import Prompt, Seed
from genloop.sampling.diffusion.sampler import DiffusionSampler
from genloop.sampling.diffusion.settings import DiffusionSampling
from genloop.sampling.diffusion.solvers import Levels, StepTable, consistency, first_order, second_order
from genloop.sampling.noise import gaussian
from tests.worlds.gaussian_denoiser import GaussianDenoiser, even_levels, exact_end, levels, mean_of

SEED = Seed(0, 0, 0, 0)
NOISE = gaussian(SEED, (2, 4, 4), step=0, round=0, purpose="latents")
Solver = Callable[[Levels], StepTable]
FIRST: Solver = partial(first_order, prediction="epsilon")
SECOND: Solver = partial(second_order, prediction="epsilon", ends_in_first_order=False)
HEUN: Solver = partial(second_order, prediction="epsilon", solver_type="heun", ends_in_first_order=False)
LCM: Solver = partial(consistency, prediction="epsilon", timestep_scaling=10.0, sigma_data=0.5)


def end(solver: Solver, at: Levels) -> torch.Tensor:
    """Where a path ends, (C, h, w)."""
    num_steps = len(at.timesteps)
    settings = DiffusionSampling(steps=num_steps, guidance_scale=1)
    sampler = DiffusionSampler(GaussianDenoiser(), lambda _: solver(at), settings)
    state = sampler.start([Prompt(0, "a ring")], [SEED])
    for _ in range(num_steps):
        state = sampler.step(state)
    assert torch.equal(state.guess, state.content)
    return state.content[0]


def error(solver: Solver, at: Levels) -> float:
    return float((end(solver, at) - exact_end(NOISE, mean_of("a ring"), at)).abs().max())


@pytest.mark.parametrize(("solver", "order"), [(FIRST, 1), (SECOND, 2), (HEUN, 2)])
def test_the_error_falls_as_the_order_says(solver: Solver, order: int) -> None:
    coarse, fine = (error(solver, even_levels(steps)) for steps in (20, 40))
    assert fine < 0.03 and np.log2(coarse / fine) > order - 0.1


def test_the_whole_way_down_ends_near_the_exact_image() -> None:
    first, second = ([error(solver, levels(steps)) for steps in (16, 64)] for solver in (FIRST, SECOND))
    assert first[0] > second[0] > second[1] and first[0] > first[1] > second[1] and second[1] < 0.05


def test_euler_is_ddim_in_other_units() -> None:
    torch.testing.assert_close(end(FIRST, levels(12, grows=True)), end(FIRST, levels(12)), rtol=0, atol=2e-5)


def test_one_consistency_step_jumps_to_the_prediction() -> None:
    one = levels(1)
    x0 = GaussianDenoiser().predict(NOISE[None], torch.tensor([999.0]), [GaussianDenoiser().encode("a ring")])
    wanted = (NOISE - one.sigma_in[0] * x0[0]) / one.alpha_in[0]
    torch.testing.assert_close(end(LCM, levels(1)), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("prediction", ["v_prediction", "sample", "flow"])
def test_a_prediction_of_another_kind_says_the_same(prediction: str) -> None:
    """x0 from an output that encodes a known x0 and eps."""
    at = levels(6, grows=prediction == "v_prediction")
    x0, eps = np.float64(0.7), np.float64(-1.3)
    if prediction == "flow":
        at = at._replace(alpha_in=1 - at.sigma_in)
    x = at.alpha_in * x0 + at.sigma_in * eps
    share = np.hypot(at.alpha_in, at.sigma_in)
    output = {
        "v_prediction": (at.alpha_in * eps - at.sigma_in * x0) / share,
        "sample": x0,
        "flow": eps - x0,
    }[prediction]
    table = first_order(at, prediction)  # type: ignore[arg-type]
    np.testing.assert_allclose(table.by_latent * x + table.by_output * output, x0, rtol=1e-9)
