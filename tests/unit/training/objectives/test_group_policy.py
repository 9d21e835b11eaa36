"""Masked-token GRPO: its loss by hand, its gradients, its groups and its states."""

import math
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from genloop.distributed import World
from genloop.models.showo.prompting import Layout
from genloop.records import Prompt
from genloop.rundir import RunFailed
from genloop.sampling.maskgit.sampler import MaskGitSampler
from genloop.sampling.maskgit.settings import SamplingConfig
from genloop.training.loop import train
from genloop.training.objectives.group_policy.advantages import group_advantages, shuffled
from genloop.training.objectives.group_policy.losses import group_policy_terms, k3, published_terms
from genloop.training.objectives.group_policy.objective import GroupPolicy, Rows
from genloop.training.objectives.group_policy.settings import GroupPolicySettings
from genloop.training.objectives.group_policy.states import states_of
from genloop.training.objectives.log_probs import code_log_probs
from genloop.training.rollouts import Rollouts
from genloop.training.settings import LoopSettings
from tests.worlds.tiny_showo import pixels_of, tiny_config, tiny_showo

CLIP = (0.8, 1.2)
PROMPTS = [Prompt(index, text) for index, text in enumerate(["a bird", "two dogs", "red", "blue apple"])]


def drawn(seed: int, *shape: int, scale: float = 0.3) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * scale


def by_hand(log_p, old, reference, advantage, weights, clip_range, kl, by_sequence) -> float:
    """One row, in plain Python."""
    tokens = [k for k, weight in enumerate(weights) if weight > 0]
    mean = sum(log_p[k] - old[k] for k in tokens) / len(tokens)
    loss = 0.0
    for k in tokens:
        ratio = math.exp(mean if by_sequence else log_p[k] - old[k])
        kept = min(max(ratio, clip_range[0]), clip_range[1])
        d = reference[k] - log_p[k]
        loss += weights[k] * (kl * (math.exp(d) - d - 1) - min(ratio * advantage, kept * advantage))
    return loss


@pytest.mark.parametrize("by_sequence", [False, True])
def test_the_loss_is_the_sum_done_by_hand(by_sequence):
    log_p, old, reference = (drawn(seed, 4, 6) - 2 for seed in (1, 2, 3))
    advantages, weights = drawn(4, 4, scale=1.0), (drawn(5, 4, 6) > 0) * 0.25
    weights[:, 0] = 0.25
    clip_range = (0.95, 1.05) if by_sequence else CLIP
    terms = group_policy_terms(
        log_p, old, reference, advantages, weights, clip_range=clip_range, kl=0.1, by_sequence=by_sequence
    )
    rows = zip(log_p.tolist(), old.tolist(), reference.tolist(), advantages.tolist(), weights.tolist(), strict=True)
    expected = [by_hand(*row, clip_range, 0.1, by_sequence) for row in rows]
    assert terms.loss.tolist() == pytest.approx(expected, rel=1e-5)
    assert 0 < float(terms.clipped.sum()) < 4


@pytest.mark.parametrize(("difference", "advantage", "moves"), [(0.5, 1, 0), (0.5, -1, 1), (-0.5, -1, 0), (-0.5, 1, 1)])
@pytest.mark.parametrize("by_sequence", [False, True])
def test_a_ratio_beyond_the_range_has_a_gradient_only_back_into_it(difference, advantage, moves, by_sequence):
    old = drawn(1, 1, 3)
    log_p = (old + difference).requires_grad_()
    terms = group_policy_terms(
        log_p,
        old,
        None,
        torch.tensor([float(advantage)]),
        torch.full((1, 3), 1 / 3),
        clip_range=CLIP,
        kl=0.0,
        by_sequence=by_sequence,
    )
    terms.loss.sum().backward()
    assert bool(log_p.grad.abs().sum() > 0) == bool(moves) and float(terms.clipped) == 1 - moves


def gradient(variant: str, *, kl: float, advantage: float = 0.0, shift: float = 0.0) -> tuple[torch.Tensor, float]:
    """The gradient at log p, and the share that is clipped; the old policy lies `shift` below."""
    log_p = (drawn(1, 2, 5) - 2).requires_grad_()
    old, advantages, weights = log_p.detach() - shift, torch.full((2,), advantage), torch.full((2, 5), 0.2)
    if variant == "published":
        terms = published_terms(log_p, advantages, weights, clip_range=(0.9, 1.2), kl=kl)
    else:
        reference, limits = old + drawn(2, 2, 5), (0.9, 1.2)
        terms = group_policy_terms(
            log_p, old, reference, advantages, weights, clip_range=limits, kl=kl, by_sequence=False
        )
    terms.loss.sum().backward()
    return log_p.grad, float(terms.clipped.mean())


def test_the_published_divergence_has_no_gradient_and_the_published_ratio_is_never_clipped():
    published, clipped = gradient("published", kl=10.0, shift=1.0)
    assert published.abs().max() == 0 and clipped == 0
    ours, clipped = gradient("genloop", kl=10.0, shift=1.0, advantage=1.0)
    assert ours.abs().max() > 0 and clipped == 1
    same, _ = gradient("published", kl=0.0, advantage=1.0)
    other, _ = gradient("published", kl=10.0, advantage=1.0, shift=1.0)
    assert torch.equal(same, other) and same.abs().max() > 0


def test_k3_is_zero_for_equal_policies_and_positive_otherwise():
    assert k3(torch.tensor(0.0)) == 0 and (k3(torch.tensor([-1.0, 1.0])) > 0).all()


def test_groups_without_a_difference_or_with_an_unknown_score_are_dropped():
    scores = np.array([[0.0, 1.0, 0.5], [0.2, 0.2, 0.2], [1.0, np.nan, 0.0]])
    advantages, kept = group_advantages(scores, by_std=True)
    assert kept.tolist() == [True, False, False] and not advantages[1:].any()
    assert advantages[0].mean() == pytest.approx(0) and advantages[0].std() == pytest.approx(1)
    assert group_advantages(scores, by_std=False)[0][0].tolist() == pytest.approx([-0.5, 0.5, 0.0])


def test_shuffled_scores_stay_in_their_groups():
    scores = np.arange(12.0).reshape(3, 4)
    found = shuffled(scores, np.random.default_rng(0))
    assert (np.sort(found, axis=1) == scores).all() and (found != scores).any()


REVEALED = torch.tensor([[0, 0, 1, 2, 3, 3], [3, 2, 1, 0, 0, 3]])


def test_states_of_a_trajectory_count_the_tokens_that_their_step_fixed():
    settings = GroupPolicySettings(states="trajectory", draws=4, kl=0.0)
    states = states_of(settings, REVEALED, num_steps=4, key=[1])
    assert torch.equal(states.weights.sum(1), torch.full((2, 6), 4 / 6))  # each token in one state
    for image, state in np.ndindex(2, 4):
        step = REVEALED[image][states.weights[image, state] > 0].unique().item()
        assert torch.equal(states.masked[image, state], REVEALED[image] >= step)
    early = states_of(settings.model_copy(update={"draws": 1, "critical_steps": 1}), REVEALED, num_steps=4, key=[1])
    assert torch.equal(early.weights[:, 0] > 0, REVEALED == 0) and early.masked.all()


@pytest.mark.parametrize("states", ["masks", "full"])
def test_states_of_masks_count_what_is_masked(states):
    settings = GroupPolicySettings(states=states, draws=3 if states == "masks" else 1)
    found = states_of(settings, REVEALED, num_steps=4, key=[1])
    assert torch.equal(found.weights > 0, found.masked)
    assert torch.allclose(found.weights.sum(2), torch.ones(2, settings.draws))
    assert torch.equal(found.masked, states_of(settings, REVEALED, num_steps=4, key=[1]).masked)


# --- the objective ----------------------------------------------------------------------------------------------------

WANTED = 7  # a code that images are rewarded for


class ShareOfWanted:
    """A judge by how many codes are the wanted one."""

    def __init__(self, model) -> None:
        self.tokenizer = pixels_of(model)

    def p_yes(self, question, prompts, images):
        return (self.tokenizer.encode(images) == WANTED).float().mean(1)


def policy(run: Path, *, lr: float = 5e-3, steps: int = 4, **keys) -> tuple[GroupPolicy, LoopSettings]:
    model = tiny_showo.__wrapped__(tiny_config())
    settings = GroupPolicySettings(**{"groups": 4, "group_size": 6, "draws": 2, "kl": 0.0, **keys})
    sampling = SamplingConfig(steps=3, guidance_scale=1.0)
    sampler = MaskGitSampler(model, pixels_of(model), sampling)
    objective = GroupPolicy(
        model,
        Layout(model.config, model.text_tokenizer),
        settings,
        PROMPTS,
        Rollouts(run, World(), sampler, ShareOfWanted(model)),
        seed=3,
        guidance_scale=1.0,
        rows_per_forward=64,
        autocast=nullcontext,
        is_exact=True,
    )
    return objective, LoopSettings(num_steps=steps, lr=lr, warmup_steps=0, schedule="constant", weight_decay=0.0)


def probability(model) -> float:
    """Mean probability of the wanted code with everything masked."""
    layout = Layout(model.config, model.text_tokenizer)
    n = model.config.num_vq_tokens
    everything = torch.full((len(PROMPTS), n), model.config.codebook_size)
    with torch.no_grad():
        log_p = code_log_probs(
            model,
            layout,
            [p.text for p in PROMPTS],
            everything,
            torch.full_like(everything, WANTED),
            dropped=[False] * 4,
        )
    return float(log_p.exp().mean())


@pytest.mark.parametrize("keys", [{}, {"states": "trajectory"}, {"states": "full", "draws": 1}, {"ratio": "sequence"}])
def test_a_reward_for_a_code_raises_its_probability(tmp_path, keys):
    objective, settings = policy(tmp_path, **keys)
    before = probability(objective.model)
    train(objective, settings, tmp_path, World())
    assert probability(objective.model) > 1.5 * before


def test_dropped_groups_have_no_gradient_not_even_of_their_divergence(tmp_path):
    objective, _ = policy(tmp_path, kl=10.0)
    objective.rehearse()
    found = objective.round
    far, rows = found.old - 1, Rows(tuple(range(found.num_rows)), 1)
    kept = torch.tensor([True, False, False, False])

    def gradient_of(kept: torch.Tensor) -> torch.Tensor:
        objective.model.zero_grad()
        objective.round = replace(found, reference=far, kept=kept)
        loss = objective.loss(rows)
        assert loss.weight == found.num_rows
        loss.total.backward()
        return objective.model.showo.lm_head.bias.grad.clone()

    assert gradient_of(kept).abs().max() > 0 and gradient_of(kept & False).abs().max() == 0
    expected = gradient_of(kept)
    quarter = Rows(tuple(range(found.num_rows // 4)), 1)  # all that is kept
    objective.model.zero_grad()
    objective.loss(quarter).total.backward()
    assert torch.allclose(objective.model.showo.lm_head.bias.grad, expected, rtol=1e-4, atol=1e-6)


def test_a_policy_that_differs_from_itself_is_not_trained(tmp_path):
    objective, settings = policy(tmp_path, steps=1)
    inner = objective._frozen_log_probs
    objective.rounds.log_probs = lambda *given: inner(*given) - 1e-3
    with pytest.raises(RunFailed, match="differs from itself"):
        train(objective, settings, tmp_path, World())
