"""What each sampling setting does, and what a state may be used for."""

import copy
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from genloop.models.showo.model import ShowO
from genloop.records import Prompt, Seed
from genloop.sampling.maskgit.sampler import MaskGitSampler, lowest
from genloop.sampling.maskgit.schedule import masked_after
from genloop.sampling.maskgit.settings import SamplingConfig
from genloop.sampling.maskgit.state import MaskGitState
from genloop.sampling.noise import half_masks
from tests.worlds.tiny_showo import PROMPTS, GreyTokenizer, pixels_of, random_codes, seeds_of, tiny_config, tiny_showo

RED = PROMPTS[2]


def sampler_of(settings: SamplingConfig, model: ShowO | None = None) -> MaskGitSampler:
    model = model or tiny_showo()
    return MaskGitSampler(model, pixels_of(model), settings)


def walk(sampler: MaskGitSampler, state: MaskGitState) -> list[MaskGitState]:
    """The state before the first step and after each."""
    states = [state]
    while states[-1].steps < states[-1].lengths:
        states.append(sampler.step(states[-1]))
    return states


def start(sampler: MaskGitSampler, num: int = 4, prompt: Prompt = RED, sample: int = 0) -> MaskGitState:
    return sampler.start([prompt] * num, [Seed(0, prompt.index, sample, c) for c in range(num)])


@pytest.mark.parametrize("schedule", ["cosine", "linear", "sigmoid", "pow2"])
def test_the_schedule_decides_how_many_tokens_each_step_fixes(schedule: str) -> None:
    sampler = sampler_of(SamplingConfig(steps=6, schedule=schedule))
    states = walk(sampler, start(sampler))
    left = 16
    for step, state in enumerate(states[1:]):
        masked = state.tokens == sampler.mask_code
        left = max(1, min(left - 1, masked_after(schedule, step, 6, 16))) if step < 5 else 0
        assert (masked.sum(1) == left).all()
        assert torch.equal(masked, state.revealed_at == -1)
        assert (state.guess < sampler.mask_code).all()
        assert torch.equal(state.guess[~masked], state.tokens[~masked])


def test_a_token_keeps_its_code_and_its_step_once_it_is_fixed() -> None:
    sampler = sampler_of(SamplingConfig(steps=6))
    states = walk(sampler, start(sampler))
    for before, after in pairwise(states):
        known = before.tokens != sampler.mask_code
        assert torch.equal(before.tokens[known], after.tokens[known])
        assert torch.equal(before.revealed_at[known], after.revealed_at[known])
        assert (after.revealed_at[~known & (after.revealed_at >= 0)] == before.steps[0]).all()


def test_more_steps_than_tokens_are_harmless() -> None:
    sampler = sampler_of(SamplingConfig(steps=40))
    final = walk(sampler, start(sampler))[-1]
    assert (final.tokens < sampler.mask_code).all()


def test_steps_end() -> None:
    sampler = sampler_of(SamplingConfig(steps=1))
    with pytest.raises(ValueError, match="all 1 steps are done"):
        sampler.step(walk(sampler, start(sampler))[-1])


def test_a_prompt_changes_the_tokens() -> None:
    sampler = sampler_of(SamplingConfig(steps=3))
    texts = [Prompt(0, "red apple"), Prompt(0, "blue apple")]
    state = walk(sampler, sampler.start(texts, [Seed(0, 0, 0, 0)] * 2))[-1]
    assert not torch.equal(state.tokens[0], state.tokens[1])


def test_known_tokens_stay_and_count_as_there_from_the_start() -> None:
    sampler = sampler_of(SamplingConfig(steps=4))
    known = random_codes(sampler.model, 2)
    known[:, 5:9] = sampler.mask_code
    final = walk(sampler, sampler.start(PROMPTS[:2], seeds_of(PROMPTS[:2]), known))[-1]
    hole = known == sampler.mask_code
    assert torch.equal(final.tokens[~hole], known[~hole])
    assert (final.revealed_at[~hole] == 0).all()
    assert (final.tokens[hole] < sampler.mask_code).all()


def test_a_preview_decodes_the_guess() -> None:
    sampler = sampler_of(SamplingConfig(steps=3))
    state = start(sampler, 2)
    with pytest.raises(ValueError, match="no guess before the first step"):
        sampler.preview(state)
    state = sampler.step(state)
    assert torch.equal(sampler.preview(state), sampler.decode(state.guess))
    assert sampler.preview(state).shape == (2, 3, 8, 8)


def test_an_argmax_preview_does_not_change_what_is_drawn() -> None:
    drawn, likely = (sampler_of(SamplingConfig(steps=5, preview=kind)) for kind in ("sampled", "argmax"))
    for one, other in zip(walk(drawn, start(drawn))[1:], walk(likely, start(likely))[1:]):
        assert torch.equal(one.tokens, other.tokens)
        if one.steps[0] < 4:
            assert not torch.equal(one.guess, other.guess)


def test_an_argmax_preview_of_the_first_step_is_alike_but_for_what_is_fixed() -> None:
    sampler = sampler_of(SamplingConfig(steps=6, preview="argmax"))
    state = sampler.step(start(sampler, 2))
    open_in_both = (state.tokens == sampler.mask_code).all(0)
    assert torch.equal(state.guess[0, open_in_both], state.guess[1, open_in_both])


def test_a_cold_token_temperature_draws_the_likeliest() -> None:
    cold = sampler_of(SamplingConfig(steps=1, token_temperature=1e-4, preview="argmax"))
    likeliest = sampler_of(SamplingConfig(steps=2, preview="argmax"))
    drawn, guess = cold.step(start(cold)).tokens, likeliest.step(start(likeliest))
    still_open = guess.tokens == likeliest.mask_code
    assert torch.equal(drawn[still_open], guess.guess[still_open])


def test_without_guidance_the_unconditional_text_is_never_run() -> None:
    sampler = sampler_of(SamplingConfig(steps=3, guidance_scale=0.0))
    walk(sampler, start(sampler))
    assert list(sampler._prefixes) == []


def test_guidance_is_the_published_combination_of_logits() -> None:
    model = tiny_showo()
    logits = {}
    for g in (0.0, 1.5):
        sampler = sampler_of(SamplingConfig(guidance_scale=g), model)
        state = start(sampler, 1)
        rows, positions = (state.tokens == sampler.mask_code).nonzero(as_tuple=True)
        logits[g] = sampler._logits(sampler._hidden(state, rows, positions))
    empty = sampler_of(SamplingConfig(guidance_scale=0.0), model)
    state = start(empty, 1, Prompt(0, ""))
    unconditional = empty._logits(empty._hidden(state, *(state.tokens == empty.mask_code).nonzero(as_tuple=True)))
    torch.testing.assert_close(logits[1.5], 2.5 * logits[0.0] - 1.5 * unconditional, atol=1e-4, rtol=1e-4)


def noise_of(mode: str, candidate: int, sample: int, temperature: float = 2.0) -> Tensor:
    sampler = sampler_of(SamplingConfig(steps=5, temperature_mode=mode, temperature=temperature))
    state = sampler.start([RED], [Seed(0, RED.index, sample, candidate)])
    return walk(sampler, state)[-1].revealed_at


def test_reference_temperature_is_for_the_first_candidate_of_the_first_sample_alone() -> None:
    assert torch.equal(noise_of("reference", 0, 0), noise_of("cumulative", 0, 0))
    assert not torch.equal(noise_of("cumulative", 0, 0), noise_of("cumulative", 0, 0, temperature=0.0))
    for candidate, sample in ((1, 0), (0, 1)):
        assert torch.equal(noise_of("reference", candidate, sample), noise_of("maskgit", candidate, sample, 0.0))


class FlatTokenizer(GreyTokenizer):
    """Says which code is background."""

    background_code = 3


def biased(code: int, amount: float) -> ShowO:
    """A model that likes one code."""
    config = tiny_config()
    model = tiny_showo.__wrapped__(config)
    with torch.no_grad():
        model.showo.lm_head.bias[config.code_offset + code] += amount
    return model


def mean_step(state: MaskGitState, is_background: Tensor) -> tuple[float, float]:
    """The mean step that fixed background, and everything else."""
    steps = state.revealed_at.float()
    return steps[is_background].mean().item(), steps[~is_background].mean().item()


@pytest.mark.parametrize("has_name", [True, False])
def test_objects_first_fixes_the_background_last(has_name: bool) -> None:
    model = biased(3, 3.0)
    config = model.config
    tokenizer = FlatTokenizer(config.codebook_size, config.grid) if has_name else pixels_of(model)
    means = {}
    for order in ("confidence", "object_first"):
        settings = SamplingConfig(steps=8, order=order, object_bonus=20.0)
        sampler = MaskGitSampler(model, tokenizer, settings)
        final = walk(sampler, start(sampler, 8))[-1]
        share = (final.tokens == 3).float().mean()
        assert 0.2 < share < 0.95
        means[order] = mean_step(final, final.tokens == 3)
    assert means["confidence"][0] < means["confidence"][1]
    assert means["object_first"][0] > means["object_first"][1]


def test_random_order_ignores_the_model() -> None:
    orders = []
    for model in (tiny_showo(), biased(3, 8.0)):
        sampler = sampler_of(SamplingConfig(steps=8, order="random"), model)
        orders.append(walk(sampler, start(sampler))[-1].revealed_at)
    assert torch.equal(*orders)


def test_a_path_can_be_masked_again_in_part() -> None:
    sampler, short = sampler_of(SamplingConfig(steps=6)), sampler_of(SamplingConfig(steps=3))
    final = walk(sampler, start(sampler))[-1]
    drop = torch.rand(final.tokens.shape, generator=torch.Generator().manual_seed(0)) < 0.4
    again = short.remask(final, drop, 3)
    assert (again.steps, again.lengths, again.rounds) == ((0,) * 4, (3,) * 4, (1,) * 4)
    states = walk(short, again)
    assert torch.equal(states[-1].tokens[~drop], final.tokens[~drop])
    assert (states[-1].tokens < short.mask_code).all()
    assert torch.equal(states[-1].revealed_at[~drop], final.revealed_at[~drop])
    assert set(states[-1].revealed_at[drop].tolist()) == {6, 7, 8}
    open_cells = [(state.tokens == short.mask_code).sum(1) for state in states]
    total = drop.sum(1)
    assert torch.equal(open_cells[0], total)
    for step in range(2):
        wanted = torch.tensor([masked_after("cosine", step, 3, num) for num in total.tolist()])
        assert torch.equal(open_cells[step + 1], torch.minimum(wanted, open_cells[step] - 1).clamp(min=1))


def test_another_round_draws_other_tokens() -> None:
    sampler = sampler_of(SamplingConfig(steps=3))
    state = start(sampler)
    first, second = (walk(sampler, replace(state, rounds=(number,) * 4))[-1].tokens for number in (0, 1))
    assert not torch.equal(first, second)


def test_masking_nothing_again_changes_nothing() -> None:
    sampler = sampler_of(SamplingConfig(steps=3))
    final = walk(sampler, start(sampler))[-1]
    again = walk(sampler, sampler.remask(final, torch.zeros_like(final.tokens, dtype=torch.bool), 3))[-1]
    assert torch.equal(again.tokens, final.tokens)


def test_a_branch_keeps_what_is_fixed_and_draws_the_rest_anew() -> None:
    sampler = sampler_of(SamplingConfig(steps=6))
    states = walk(sampler, start(sampler))
    middle = states[3]
    branched = sampler.branch(middle, [Seed(0, RED.index, 0, 4 + row) for row in range(4)])
    known = middle.tokens != sampler.mask_code
    final = walk(sampler, branched)[-1]
    assert torch.equal(final.tokens[known], middle.tokens[known])
    assert torch.equal(final.revealed_at[known], middle.revealed_at[known])
    assert (final.tokens != states[-1].tokens).any(1).all()
    with pytest.raises(ValueError, match=r"4 rows .*found 1"):
        sampler.branch(middle, [Seed(0, 0, 0, 0)])


def test_confidence_is_the_log_probability_of_hidden_tokens_under_the_text() -> None:
    sampler = sampler_of(SamplingConfig(steps=4))
    final = walk(sampler, start(sampler, 3))[-1]
    found = sampler.confidence(final)
    assert found.shape == (3, 16) and (found < 0).all()
    literal = MaskGitSampler(sampler.model, sampler.tokenizer, SamplingConfig(guidance_scale=0.0))
    for row, seed in enumerate(final.seeds):
        masks = torch.from_numpy(half_masks(seed, 0, 16))
        assert masks.any(0).all() and masks.sum(1).tolist() == [8, 8, 8]
        total = torch.zeros(16)
        for mask in masks:
            hidden = final.tokens[row].masked_fill(mask, sampler.mask_code)[None]
            state = literal.start([RED], [seed], hidden)
            logits = literal._logits(literal._hidden(state, *mask[None].nonzero(as_tuple=True)))
            total[mask] += logits.log_softmax(-1).gather(1, final.tokens[row][mask][:, None])[:, 0]
        torch.testing.assert_close(found[row], total / masks.sum(0), atol=1e-5, rtol=1e-5)


def test_stopping_early_takes_the_guess_of_that_step() -> None:
    whole = sampler_of(SamplingConfig(steps=9, preview="argmax"))
    short = sampler_of(SamplingConfig(steps=9, preview="argmax", stop_after=4))
    states, stopped = walk(whole, start(whole)), walk(short, start(short))
    assert len(stopped) == 5 and short.num_steps == 4
    for one, other in zip(states[:4], stopped[:4]):
        assert torch.equal(one.tokens, other.tokens)
    assert torch.equal(stopped[-1].tokens, states[4].guess)
    assert (stopped[-1].revealed_at >= 0).all() and stopped[-1].revealed_at.max() == 3
    with pytest.raises(ValueError, match="5 is more than the 4 steps"):
        SamplingConfig(steps=4, stop_after=5)


def test_a_tokenizer_with_another_codebook_is_refused() -> None:
    model = tiny_showo()
    with pytest.raises(ValueError, match=r"9 codes, .*24"):
        MaskGitSampler(model, GreyTokenizer(9, (4, 4)), SamplingConfig())


def test_equal_keys_are_not_masked_by_chance() -> None:
    keys = torch.tensor([[0.0, 1.0, 1.0, 2.0], [3.0, 1.0, 2.0, 0.0]])
    assert lowest(keys, torch.tensor([2, 3])).tolist() == [[True, False, False, False], [False, True, True, True]]


@pytest.mark.parametrize("keys", [{"schedule": "cosin"}, {"steps": 0}, {"order": "best"}, {"guidance_scale": -1.0}])
def test_settings_that_make_no_sense_are_refused(keys: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(keys))):
        SamplingConfig(**keys)


@pytest.mark.parametrize("guidance", [0.0, 3.0])
def test_samples_follow_weights_that_were_changed_in_place(guidance: float) -> None:
    settings = SamplingConfig(steps=4, guidance_scale=guidance)
    kept = sampler_of(settings, copy.deepcopy(tiny_showo()))
    before = start(kept)  # a path that goes on holding the prefixes of the old weights
    walk(kept, before)
    for parameter in kept.model.parameters():  # through .data, as adapters are merged: no version counter tells
        parameter.data.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)), alpha=0.3)
    fresh = MaskGitSampler(kept.model, kept.tokenizer, settings)
    assert torch.equal(walk(kept, start(kept))[-1].tokens, walk(fresh, start(fresh))[-1].tokens)
