"""The loss of preference pairs: its parts, its gradient, what it does to both sides."""

import copy

import pytest
import torch

from genloop.rundir import RunFailed
from tests.unit.training.objectives.preference.test_estimator import other_model
from tests.worlds.preference import tiny_objective
from tests.worlds.tiny_showo import tiny_showo


def batch_of(objective, step=1, items=slice(None)):
    plan = objective.plan(step)
    return objective.load(plan.items[items], plan)


@pytest.mark.parametrize("variant", ["shared", "released"])
def test_a_policy_that_is_the_reference_has_margin_0(tmp_path, variant):
    objective = tiny_objective(tmp_path, variant=variant)
    with torch.no_grad():
        loss = objective.loss(batch_of(objective))
    assert loss.weight == 6 and loss.parts["margin"] == pytest.approx(0, abs=1e-3)
    assert float(loss.total) / 6 == pytest.approx(0.693, abs=1e-3)
    assert loss.parts["loss_dpop"] == pytest.approx(0, abs=1e-2)


@pytest.mark.parametrize("variant", ["shared", "released"])
@pytest.mark.parametrize("guidance", [0.0, 1.0])
def test_a_step_against_the_gradient_lifts_chosen_above_rejected(tmp_path, variant, guidance):
    objective = tiny_objective(
        tmp_path, variant=variant, guidance=0.0 if variant == "released" else guidance, mask_epochs=1
    )
    objective.model = copy.deepcopy(objective.model)
    batch, sides = batch_of(objective), []
    for _ in range(2):
        loss = objective.loss(batch)
        sides.append((loss.parts["chosen_log_ratio"], loss.parts["rejected_log_ratio"]))
        gradients = torch.autograd.grad(loss.total, list(objective.model.parameters()), allow_unused=True)
        with torch.no_grad():
            for parameter, gradient in zip(objective.model.parameters(), gradients):
                if gradient is not None:
                    parameter -= 1e-4 * gradient
    assert sides[1][0] > sides[0][0] and sides[1][1] < sides[0][1]


def test_parts_of_a_batch_add_up_to_the_whole(tmp_path):
    objective = tiny_objective(tmp_path, reference=other_model(), variant="released", sft=0.5, dpop=0.5)
    with torch.no_grad():
        whole = objective.loss(batch_of(objective, 2))
        parts = [objective.loss(batch_of(objective, 2, slice(rank, None, 2))) for rank in range(2)]
    assert sum(float(part.total) for part in parts) == pytest.approx(float(whole.total), rel=1e-5)
    for name, value in whole.parts.items():
        assert sum(part.parts[name] for part in parts) == pytest.approx(value, rel=1e-4, abs=1e-4)


def test_a_judged_gap_changes_the_gradient(tmp_path):
    found = []
    for guidance in ("none", "margin"):
        objective = tiny_objective(tmp_path / guidance, judge_guidance=guidance, judge_weight=2.0, draws=2)
        gradients = torch.autograd.grad(objective.loss(batch_of(objective)).total, [tiny_showo().showo.lm_head.bias])
        found.append(gradients[0])
    assert (found[1] - found[0]).norm() > 1e-3 * found[0].norm()


def test_a_loss_that_is_no_number_names_its_pair(tmp_path):
    objective = tiny_objective(tmp_path)
    objective.reference[objective.plan(1).items[2].key][:] = float("nan")
    with pytest.raises(RunFailed, match=f"sample {objective.plan(1).items[2].key[1]:05d}"):
        objective.loss(batch_of(objective))


def test_without_the_preference_terms_nothing_is_learned_from_pairs(tmp_path):
    objective = tiny_objective(tmp_path, reference=other_model(), dpop=0.5, preference_weight=0.0)
    loss = objective.loss(batch_of(objective))
    (gradient,) = torch.autograd.grad(loss.total, [tiny_showo().showo.lm_head.bias])
    assert not gradient.any() and loss.parts["loss_dpop"] > 0
