"""The law of decoding: a candidate's tokens depend on its prompt, its Seed and the settings, on nothing beside it."""

from collections.abc import Sequence
from functools import lru_cache

import pytest
import torch

from genloop.models.showo.model import ShowO
from genloop.records import Prompt, Seed
from genloop.sampling.maskgit.sampler import MaskGitSampler
from genloop.sampling.maskgit.settings import SamplingConfig
from genloop.sampling.maskgit.state import MaskGitState
from tests.worlds.tiny_showo import PROMPTS, pixels_of, tiny_config, tiny_showo

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
    guess = state.guess
    for _ in range(sampler.num_steps):
        guess = state.guess
        state = sampler.step(state)
    return {
        seed: (state.tokens[i].tolist(), state.revealed_at[i].tolist(), guess[i].tolist())
        for i, (_, seed) in enumerate(pairs)
    }


def sampler_of(model: ShowO, settings: str, rows_per_forward: int = 256) -> MaskGitSampler:
    return MaskGitSampler(model, pixels_of(model), SETTINGS[settings], rows_per_forward=rows_per_forward)


def finish(sampler: MaskGitSampler, state: MaskGitState) -> MaskGitState:
    """All steps that are left."""
    while state.steps < state.lengths:
        state = sampler.step(state)
    return state


@lru_cache
def alone(size: str, settings: str) -> Paths:
    """Every candidate decoded by itself."""
    paths: Paths = {}
    for prompt in PROMPTS:
        for candidate in range(2):
            sampler = sampler_of(tiny_showo(SIZES[size]), settings)
            state = sampler.start([prompt], [Seed(7, prompt.index, 0, candidate)])
            guess = state.guess
            for _ in range(sampler.num_steps):
                guess = state.guess
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
        part = finish(sampler, state.select(rows))
        assert torch.equal(part.tokens, states[-1].tokens[rows]), f"selected after {step} steps"
        assert torch.equal(part.revealed_at, states[-1].revealed_at[rows])


def staggered(sampler: MaskGitSampler, waves: int) -> Paths:
    """All candidates in one batch that never empties: a new wave joins after every step, done rows leave."""
    jobs = [(prompt, Seed(7, prompt.index, 0, c)) for prompt in PROMPTS for c in range(2)]
    paths: Paths = {}
    state: MaskGitState | None = None
    while jobs or state is not None:
        wave, jobs = jobs[:waves], jobs[waves:]
        parts = [state] if state is not None else []
        parts += [sampler.start([prompt for prompt, _ in wave], [seed for _, seed in wave])] if wave else []
        before = sampler.join(parts)
        after = sampler.step(before)
        for row, seed in enumerate(after.seeds):
            if after.steps[row] == after.lengths[row]:
                found = after.tokens[row], after.revealed_at[row], before.guess[row]
                paths[seed] = tuple(values.tolist() for values in found)
        going = [row for row in range(len(after)) if after.steps[row] < after.lengths[row]]
        state = after.select(going) if going else None
    return paths


@pytest.mark.parametrize("waves", [1, 2, 5])
@pytest.mark.parametrize(
    ("size", "settings"), [(size, "default") for size in SIZES] + [("shapes", name) for name in SETTINGS]
)
def test_rows_at_other_steps_change_nothing(size: str, settings: str, waves: int) -> None:
    assert staggered(sampler_of(tiny_showo(SIZES[size]), settings), waves) == alone(size, settings)


def redrawn(sampler: MaskGitSampler, seeds: Sequence[Seed], final: MaskGitState) -> MaskGitState:
    """Finished paths with their least confident third drawn again in two steps, under other seeds."""
    state = sampler.branch(final, seeds)
    worst = sampler.confidence(state).argsort(1)[:, : state.tokens.shape[1] // 3]
    return sampler.remask(state, torch.zeros_like(state.tokens, dtype=torch.bool).scatter(1, worst, True), 2)


@pytest.mark.parametrize("size", ["tiny", "shapes"])
def test_paths_that_are_masked_again_do_not_see_their_neighbours(size: str) -> None:
    sampler = sampler_of(tiny_showo(SIZES[size]), "objects")
    prompts = PROMPTS[1:5]
    final = finish(sampler, sampler.start(prompts, [Seed(7, prompt.index, 0, 0) for prompt in prompts]))
    seeds = [Seed(7, prompt.index, 0, 9) for prompt in prompts]
    fresh = sampler.step(sampler.start(PROMPTS[:3], [Seed(8, prompt.index, 0, 0) for prompt in PROMPTS[:3]]))
    mixed = sampler.join([fresh.select([2]), redrawn(sampler, seeds, final), fresh.select([0, 1])])
    for _ in range(2):
        mixed = sampler.step(mixed)
    for row in range(4):
        alone = finish(sampler, redrawn(sampler, seeds[row : row + 1], final.select([row])))
        assert torch.equal(mixed.tokens[row + 1], alone.tokens[0])
        assert torch.equal(mixed.revealed_at[row + 1], alone.revealed_at[0])
    together = sampler.confidence(final)
    for row in range(4):
        assert torch.equal(sampler.confidence(final.select([row]))[0], together[row])


def test_the_global_generator_is_neither_read_nor_moved() -> None:
    model = tiny_showo()
    results = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        results.append(walk(sampler_of(model, "default"), PROMPTS[:2], 2))
        assert torch.equal(torch.get_rng_state(), before)
    assert results[0] == results[1]
