"""What is measured beside the loss: held-out pairs, the spread over masks, gradient norms of the terms."""

import numpy as np
import pytest
import torch

from genloop.distributed import World
from genloop.rundir import RunFailed
from genloop.training.objectives.preference.measurements import (
    MeasuredPairs,
    gradient_norms,
    held_out_measures,
    self_test,
    spread_measures,
)
from genloop.training.objectives.preference.reference import empty_tables, estimated
from tests.unit.training.objectives.preference.test_estimator import other_model
from tests.unit.training.objectives.preference.test_objective import batch_of
from tests.worlds.preference import estimator_of, tiny_objective, tiny_pairs
from tests.worlds.tiny_showo import tiny_showo


def test_held_out_pairs_of_the_reference_itself_have_no_margin_and_no_divergence(tmp_path):
    model = tiny_showo()
    pairs, estimator = tiny_pairs(tmp_path, model), estimator_of(model)

    def tables(name, estimator, pairs, keys):
        return estimated(estimator, model, pairs, keys, 2)

    measured = MeasuredPairs.of("held_out", estimator, pairs, 4, tables)
    same = held_out_measures(measured.policy(model, 3, World()), measured, beta=0.1)
    moved = held_out_measures(measured.policy(other_model(), 3, World()), measured, beta=0.1)
    assert same["held_out_pairs"] == 4 and same["held_out_accuracy"] == 0.5
    assert same["held_out_accuracy_low"] < 0.5 < same["held_out_accuracy_high"]
    assert same["held_out_margin"] == pytest.approx(0, abs=1e-4) and same["kl"] == pytest.approx(0, abs=1e-6)
    assert moved["kl"] > 1e-3 and abs(moved["held_out_margin"]) > 1e-3


def test_the_spread_is_the_deviation_of_the_log_ratio_over_draws():
    gaps = np.array([[1.0, 3.0, 5.0], [2.0, 2.0, 2.0]])  # (X, D)
    policy = np.zeros((2, 3, 2, 4))
    policy[:, :, 0, 1], policy[:, :, 1, 2] = gaps / 2, -gaps / 2
    found = spread_measures(policy, np.zeros_like(policy), draws=4)
    assert found["log_ratio"] == pytest.approx(2.5)
    assert found["log_ratio_spread"] == pytest.approx(np.sqrt((4 + 0) / 2))
    assert found["log_ratio_error"] == pytest.approx(found["log_ratio_spread"] / 2)


@pytest.mark.parametrize("rows", [2, 100])
def test_the_gradient_norm_is_that_of_the_loss_and_leaves_no_gradient(tmp_path, rows):
    objective = tiny_objective(tmp_path, reference=other_model(), dpop=0.5)
    found = gradient_norms(objective, 1, rows)
    parameters = list(objective.model.parameters())
    gradients = torch.autograd.grad(objective.loss(batch_of(objective)).total / 6, parameters, allow_unused=True)
    norm = torch.stack([gradient.norm() for gradient in gradients if gradient is not None]).norm()
    assert found == {"grad_norm_preference": pytest.approx(float(norm), rel=1e-4)}
    assert all(parameter.grad is None for parameter in parameters)


@pytest.mark.parametrize("is_exact", [True, False])
def test_the_self_test_names_a_pair_whose_policy_is_not_the_reference(tmp_path, is_exact):
    objective = tiny_objective(tmp_path)
    self_test(objective, is_exact=is_exact)
    key = objective.plan(1).items[3].key
    objective.reference[key][0, 1] += 30
    with pytest.raises(RunFailed, match=f"sample {key[1]:05d}"):
        self_test(objective, is_exact=is_exact)


def test_a_reference_that_nobody_asks_has_the_shape_of_one(tmp_path):
    model = tiny_showo()
    pairs, estimator, keys = tiny_pairs(tmp_path, model), estimator_of(model), [(0, 0), (0, 1)]
    real = estimated(estimator, model, pairs, keys, 2)
    assert empty_tables("held_out", estimator, pairs, keys).shape == real.shape
    assert empty_tables("train", estimator, pairs, keys).shape == real.shape[:-1]
