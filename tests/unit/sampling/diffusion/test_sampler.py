"""Paths of latents: what keys them, what is kept, what every strategy may ask of them."""

import math
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from genloop.config import parse_options
from genloop.records import Choice, Prompt, Seed
from genloop.registry import lookup
from genloop.sampling.diffusion.sampler import DiffusionSampler
from genloop.sampling.diffusion.settings import DiffusionSampling
from genloop.sampling.diffusion.solvers import consistency, first_order, second_order
from genloop.sampling.diffusion.state import DiffusionState
from genloop.search import STRATEGIES
from tests.worlds.gaussian_denoiser import GaussianDenoiser, levels
from tests.worlds.tiny_search import PAIRS, SEARCHES, Opinions, content

STEPS = 6
SOLVERS: dict[str, Any] = {
    "first order": partial(first_order, prediction="epsilon"),
    "second order": partial(second_order, prediction="epsilon"),
    "consistency": partial(consistency, prediction="epsilon", timestep_scaling=10.0, sigma_data=0.5),
}
PROMPTS = [Prompt(0, "a ring"), Prompt(1, "two stars"), Prompt(2, "a red ring")]
SEEDS = [Seed(3, prompt.index, 0, 1) for prompt in PROMPTS]


def sampler(solver: str = "second order", **settings: Any) -> DiffusionSampler:
    given = DiffusionSampling(**{"steps": STEPS, "guidance_scale": 3.0, **settings})
    return DiffusionSampler(GaussianDenoiser(), lambda n: SOLVERS[solver](levels(n)), given, slots=4)


def walk(one: DiffusionSampler, state: DiffusionState, steps: int) -> DiffusionState:
    for _ in range(steps):
        state = one.step(state)
    return state


@pytest.mark.parametrize("solver", SOLVERS)
def test_rows_at_different_steps_do_not_know_each_other(solver: str) -> None:
    one = sampler(solver)
    ahead = walk(one, one.start(PROMPTS[:1], SEEDS[:1]), 2)
    joined = one.join([ahead, one.start(PROMPTS[1:], SEEDS[1:])])
    joined = walk(one, joined, STEPS - 2)
    assert joined.steps == (STEPS, STEPS - 2, STEPS - 2)
    rest = walk(one, joined.select([2, 1]), 2)
    alone = [walk(one, one.start([prompt], [seed]), STEPS).content[0] for prompt, seed in zip(PROMPTS, SEEDS)]
    found = [joined.content[0], rest.content[1], rest.content[0]]
    assert all(torch.equal(a, b) for a, b in zip(alone, found))
    with pytest.raises(ValueError, match="done"):
        one.step(joined)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("at", [0, 2])
def test_a_branch_goes_elsewhere_only_with_another_seed(solver: str, at: int) -> None:
    one = sampler(solver)
    state = walk(one, one.start(PROMPTS, SEEDS), at)
    others = [Seed(3, seed.prompt, 0, 2) for seed in SEEDS]
    end, same, other = (walk(one, one.branch(state, keys), STEPS - at).content for keys in (SEEDS, SEEDS, others))
    assert torch.equal(end, same) and torch.equal(end, walk(one, state, STEPS - at).content)
    assert all(not torch.equal(a, b) for a, b in zip(end, other))
    if at == 0:
        assert torch.equal(other, walk(one, one.start(PROMPTS, others), STEPS).content)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("again", [2, STEPS, STEPS + 3])
def test_reopened_cells_are_drawn_again_and_the_others_stay(solver: str, again: int) -> None:
    one = sampler(solver)
    done = walk(one, one.start(PROMPTS, SEEDS), STEPS)
    drop = torch.zeros(3, 16, dtype=torch.bool)
    drop[0, :5] = drop[1] = True  # a region, everything, nothing
    reopened = one.remask(done, drop, again)
    assert reopened.lengths == (again,) * 3
    half = one.step(reopened)
    assert one.preview(half).isfinite().all()
    end = walk(one, half, again - 1)
    changed = (end.content != done.content).any(1).flatten(1)
    assert torch.equal(changed, drop) and torch.equal(end.guess, end.content)


def test_a_weaker_reopening_stays_nearer() -> None:
    one = sampler()
    done = walk(one, one.start(PROMPTS, SEEDS), STEPS)
    everything = torch.ones(3, 16, dtype=torch.bool)
    moves = [
        (walk(one, one.remask(done, everything, steps), steps).content - done.content).square().mean().item()
        for steps in (1, 3, STEPS)
    ]
    assert moves == sorted(moves)


def test_an_image_is_noised_again_to_a_strength_and_drawn_for_another_text() -> None:
    one, other = sampler(), PROMPTS[::-1]
    done = walk(one, one.start(PROMPTS, SEEDS), STEPS)
    ends = {}
    for strength in (0.2, 0.6, 1.0):
        again = one.renoise(done, other, strength)
        assert again.lengths == (math.ceil(strength * STEPS),) * 3
        ends[strength] = walk(one, again, again.lengths[0]).content
    moves = [(end - done.content).square().mean().item() for end in ends.values()]
    assert moves == sorted(moves) and moves[0] > 0
    same, stronger = (
        walk(one, one.renoise(done, prompts, 1.0, guidance), STEPS).content
        for prompts, guidance in ((PROMPTS, 1.0), (other, 3.0))
    )
    assert not torch.equal(same[0], ends[1.0][0]) and not torch.equal(stronger, ends[1.0])


def test_guidance_follows_the_text_and_flees_the_negative_prompt() -> None:
    plain, guided, fleeing = (
        walk(one, one.start(PROMPTS[:1], SEEDS[:1]), STEPS).content
        for one in (sampler(guidance_scale=1.0), sampler(), sampler(negative_prompt="two stars"))
    )
    assert not torch.equal(plain, guided) and not torch.equal(guided, fleeing)
    assert sampler(guidance_scale=1.0).flops_per_step * 2 == sampler().flops_per_step


def test_what_a_row_of_a_run_holds() -> None:
    one = sampler()
    state = walk(one, one.start(PROMPTS, SEEDS), STEPS)
    packed = [one.pack(latent.numpy(), one.history(state, row)) for row, latent in enumerate(state.content)]
    assert packed == [one.pack(latent.numpy()) for latent in state.content]
    assert len({row["latents_sha256"] for row in packed}) == 3


def test_confidence_is_lowest_where_the_guess_is_damaged() -> None:
    one = sampler()
    state = walk(one, one.start(PROMPTS, SEEDS), STEPS)
    guess = state.guess.clone()
    guess[:, :, 1, 2] += 5
    fit = one.confidence(type(state)(**{**vars(state), "guess": guess}))
    assert fit.shape == (3, 16) and (fit.argmin(1) == 6).all()


def test_a_preview_before_the_first_step_is_refused() -> None:
    one = sampler()
    with pytest.raises(ValueError, match="first step"):
        one.preview(one.start(PROMPTS, SEEDS))


def search(name: str, pairs: list[tuple[Prompt, int]], slots: int = 64) -> list[Choice]:
    strategy, n, options = SEARCHES[name]
    cls: Any = lookup(STRATEGIES, strategy, "strategy")
    settings = parse_options(cls.Options, options)
    one = sampler()
    one.slots = slots
    return list(cls(one, Opinions() if cls.questions(settings) else None, n, settings).search(pairs, 5))


@pytest.mark.parametrize("name", [name for name in SEARCHES if "layout" not in name])
def test_every_strategy_searches_it_whatever_walks_beside(name: str) -> None:
    wide = search(name, PAIRS)
    assert [content(choice) for choice in wide[:2]] == [content(c) for p in PAIRS[:2] for c in search(name, [p])]
    assert [content(choice) for choice in wide] == [content(choice) for choice in search(name, PAIRS, slots=3)]
    for choice in wide:
        assert choice.candidates[choice.chosen].cut_at is None and np.isfinite(choice.cost.flops)
