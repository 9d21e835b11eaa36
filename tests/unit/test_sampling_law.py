"""The law of decoding: a candidate's tokens depend on its prompt, its Seed and the settings, on nothing beside it."""

from collections.abc import Sequence
from functools import lru_cache

import pytest
import torch

from genloop.models.showo import ShowO
from genloop.records import Prompt, Seed
from genloop.sampling.maskgit import MaskGitSampler
from genloop.sampling.settings import SamplingConfig
from tests.unit.tiny_showo import PROMPTS, pixels_of, tiny_config, tiny_showo

SIZES = {
    "tiny": tiny_config(),
    "shapes": tiny_config(num_tokens=36, codebook_size=351, width=96, heads=4, layers=2),
    "wide": tiny_config(num_tokens=64, codebook_size=128, width=128, heads=2, layers=2),
    "single cell": tiny_config(num_tokens=1),
}
SETTINGS = {
    "default": SamplingConfig(steps=5),
    "objects": SamplingConfig(steps=4, order="object_first", token_temperature=0.7, preview="argmax"),
    "random": SamplingConfig(steps=4, order="random", guidance_scale=5.0),
    "unguided": SamplingConfig(steps=4, guidance_scale=0.0, temperature_mode="reference"),
}
GROUPS = ([0], [1, 0], [3, 2, 4], [5, 4, 3, 2, 1, 0])
Paths = dict[Seed, tuple[list[int], list[int], list[int]]]


def walk(sampler: MaskGitSampler, prompts: Sequence[Prompt], candidates: int) -> Paths:
    """{seed: tokens, revealed_at, guess one step before the end} of all candidates of the prompts in one batch."""
    pairs = [(prompt, Seed(7, prompt.index, 0, c)) for prompt in prompts for c in range(candidates)]
    state = sampler.start([prompt for prompt, _ in pairs], [seed for _, seed in pairs])
    guess = state.tokens
    for _ in range(sampler.num_steps):
        guess = state.tokens if state.guess is None else state.guess
        state = sampler.step(state)
    return {
        seed: (state.tokens[i].tolist(), state.revealed_at[i].tolist(), guess[i].tolist())
        for i, (_, seed) in enumerate(pairs)
    }


def sampler_of(model: ShowO, settings: str, rows_per_forward: int = 256) -> MaskGitSampler:
    return MaskGitSampler(model, pixels_of(model), SETTINGS[settings], rows_per_forward=rows_per_forward)


@lru_cache
def alone(size: str, settings: str) -> Paths:
    """Every candidate decoded by itself."""
    paths: Paths = {}
    for prompt in PROMPTS:
        for candidate in range(2):
            sampler = sampler_of(tiny_showo(SIZES[size]), settings)
            state = sampler.start([prompt], [Seed(7, prompt.index, 0, candidate)])
            guess = state.tokens
            for _ in range(sampler.num_steps):
                guess = state.tokens if state.guess is None else state.guess
                state = sampler.step(state)
            paths[state.seeds[0]] = (state.tokens[0].tolist(), state.revealed_at[0].tolist(), guess[0].tolist())
    return paths


@pytest.mark.parametrize("rows_per_forward", [1, 3, 256])
@pytest.mark.parametrize(
    ("size", "settings"), [(size, "default") for size in SIZES] + [("shapes", name) for name in SETTINGS]
)
def test_neighbours_and_chunks_change_nothing(size: str, settings: str, rows_per_forward: int) -> None:
    expected = alone(size, settings)
    sampler = sampler_of(tiny_showo(SIZES[size]), settings, rows_per_forward)
    for group in GROUPS:
        paths = walk(sampler, [PROMPTS[index] for index in group], 2)
        assert paths == {seed: expected[seed] for seed in paths}
        assert len(paths) == 2 * len(group)


def test_paths_of_different_seeds_differ() -> None:
    tokens = [tuple(path[0]) for path in alone("shapes", "default").values()]
    assert len(set(tokens)) == len(tokens)


@pytest.mark.parametrize("rows", [[2], [3, 0], [0, 0, 1]])
def test_a_path_that_is_dropped_or_doubled_goes_on_as_before(rows: list[int]) -> None:
    model = tiny_showo(SIZES["shapes"])
    sampler = sampler_of(model, "default")
    seeds = [Seed(7, 2, 0, candidate) for candidate in range(4)]
    states = [sampler.start([PROMPTS[2]] * 4, seeds)]
    for _ in range(sampler.num_steps):
        states.append(sampler.step(states[-1]))
    for step, state in enumerate(states):
        part = state.select(rows)
        while part.step < sampler.num_steps:
            part = sampler.step(part)
        assert torch.equal(part.tokens, states[-1].tokens[rows]), f"selected after {step} steps"
        assert torch.equal(part.revealed_at, states[-1].revealed_at[rows])


def test_the_global_generator_is_neither_read_nor_moved() -> None:
    model = tiny_showo()
    results = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        results.append(walk(sampler_of(model, "default"), PROMPTS[:2], 2))
        assert torch.equal(torch.get_rng_state(), before)
    assert results[0] == results[1]
