"""A judge's term: which images it scores, its gradient, what it takes from other images of the prompt."""

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch

from genloop.data.pairs.pair import prompt_of
from genloop.distributed import World
from genloop.rundir import RunFailed
from genloop.sampling.maskgit.sampler import MaskGitSampler
from genloop.sampling.maskgit.settings import SamplingConfig
from genloop.training.objectives.preference.judged import JudgedImages
from genloop.training.rollouts import Rollouts
from tests.worlds.pairs import a_pair
from tests.worlds.preference import tiny_objective
from tests.worlds.tiny_showo import pixels_of, tiny_showo


class Brightness:
    """Says yes to bright images."""

    flops = None

    def p_yes(self, question: str, prompts: Any, images: torch.Tensor) -> torch.Tensor:
        return images.mean((1, 2, 3)).clamp(0, 1)


def judged_objective(folder, **settings):
    """Six pairs, two prompts with three judged images each."""
    objective = tiny_objective(folder / "pairs", judge_group=3, **settings)
    model = tiny_showo()
    sampler = MaskGitSampler(model, pixels_of(model), SamplingConfig(steps=3))
    rollouts = Rollouts(folder, World(), sampler, Brightness())
    objective.judged = JudgedImages(objective.settings, objective.estimator, objective.pairs, rollouts, nullcontext)
    objective.prepare_every = objective.settings.judge_every
    return objective


def gathered(*, averages=None):
    return nullcontext()


def loss_of(objective, step=1, items=slice(None)):
    plan = objective.plan(step)
    return objective.loss(objective.load(plan.items[items], plan))


def gradient(objective, step=1):
    return torch.autograd.grad(loss_of(objective, step).total, [tiny_showo().showo.lm_head.bias])[0]


@pytest.mark.parametrize(("guidance", "moves"), [("reinforce", True), ("released", False)])
def test_only_reinforce_has_a_gradient(tmp_path, guidance, moves):
    plain = gradient(tiny_objective(tmp_path / "plain"))
    objective = judged_objective(tmp_path, judge_guidance=guidance, judge_weight=1.0)
    line = objective.prepare(1, gathered)
    assert line["reward_images"] == 6 and 0 < line["reward"] < 1
    found = gradient(objective)
    assert torch.equal(found, plain) != moves
    assert loss_of(objective).parts["loss_judge"] != 0


def test_a_step_against_the_gradient_makes_better_images_likelier(tmp_path):
    objective = judged_objective(tmp_path, judge_guidance="reinforce")
    objective.prepare(1, gathered)
    judged, places = objective.judged, range(6)
    advantages = judged._advantages(judged.images)[0]
    assert advantages.reshape(2, 3).sum(1).abs().max() < 1e-6
    scores = judged.images.scores.reshape(2, 3).numpy()
    assert advantages[0] == pytest.approx(scores[0, 0] - (scores[0, 1] + scores[0, 2]) / 2)
    bias = tiny_showo().showo.lm_head.bias
    (found,) = torch.autograd.grad(judged.loss(tiny_showo(), 1, places), [bias])
    with torch.no_grad():
        before = judged.loss(tiny_showo(), 1, places)
        bias -= 1e-3 * found
        after = judged.loss(tiny_showo(), 1, places)
        bias += 1e-3 * found
    assert after < before


def test_parts_of_a_batch_add_up_and_masks_are_those_of_the_prompt(tmp_path):
    objective = judged_objective(tmp_path, judge_guidance="reinforce", judge_weight=0.5)
    objective.prepare(1, gathered)
    with torch.no_grad():
        whole = loss_of(objective)
        parts = [loss_of(objective, items=slice(rank, None, 2)) for rank in range(2)]
    assert sum(float(part.total) for part in parts) == pytest.approx(float(whole.total), rel=1e-4)


def test_a_resumed_run_reads_its_images_and_draws_none_of_other_weights(tmp_path):
    objective = judged_objective(tmp_path, judge_guidance="reinforce", judge_every=3)
    objective.prepare(1, gathered)
    again = judged_objective(tmp_path, judge_guidance="reinforce", judge_every=3)
    assert again.prepare(2, gathered) is None
    assert torch.equal(again.judged.images.tokens, objective.judged.images.tokens)
    with pytest.raises(RunFailed):
        again.prepare(5, gathered)


@pytest.mark.parametrize("rewritten", [False, True])
def test_prompts_of_pairs_have_their_metadata(rewritten):
    clause = {"class": "star", "count": 2}
    metadata = {"tag": "counting", "include": [clause], "prompt": "a photo of two stars"}
    pair = a_pair(0, metadata=metadata, prompt="stars, two" if rewritten else "a photo of two stars")
    prompt = prompt_of(pair)
    assert (prompt.text, prompt.condition, prompt.tag) == ("a photo of two stars", pair.prompt, "counting")
    assert prompt.include[0].class_name == "star"
    bare = prompt_of(a_pair(1, tag=None))
    assert bare.tag is None and bare.condition == "1 stars"
    assert np.array_equal(pair.chosen, a_pair(0).chosen)
