"""The terms of DPO against plain Python, and what they do to log-probabilities."""

import math

import pytest
import torch

from genloop.training.objectives.preference.losses import k3, pair_terms, share_won


def by_hand(policy, reference, beta, wanted):
    """One pair: lists of draws of (chosen, rejected)."""
    ratios = [sum(p[side] - q[side] for p, q in zip(policy, reference)) / len(policy) for side in (0, 1)]
    z = beta * (ratios[0] - ratios[1])
    return math.log1p(math.exp(wanted - z)), max(0.0, -ratios[0] - 1e-3), z


@pytest.mark.parametrize("beta", [0.1, 2.0])
@pytest.mark.parametrize("wanted", [0.0, 0.7])
def test_terms_are_those_of_plain_python(beta, wanted):
    generator = torch.Generator().manual_seed(1)
    policy, reference = torch.randn(2, 5, 3, 2, generator=generator, dtype=torch.float64)
    found = pair_terms(policy, reference, beta=beta, wanted_margin=torch.full((5,), wanted))
    for row in range(5):
        expected = by_hand(policy[row].tolist(), reference[row].tolist(), beta, wanted)
        assert [found.dpo[row], found.dpop[row], found.margin[row]] == pytest.approx(expected, rel=1e-6)


def test_equal_models_have_no_margin_and_log_2():
    same = torch.randn(3, 2, 2, generator=torch.Generator().manual_seed(0))
    found = pair_terms(same, same, beta=0.5, wanted_margin=torch.zeros(3))
    assert found.margin.tolist() == [0, 0, 0] and found.dpop.tolist() == [0, 0, 0]
    assert found.dpo.tolist() == pytest.approx([math.log(2)] * 3)
    assert share_won(torch.tensor([-1.0, 1e-5, 0.0, 2.0]), 0.1).tolist() == [0, 0.5, 0.5, 1]


def test_the_gradient_lifts_the_chosen_and_lowers_the_rejected_side_more_where_a_margin_is_wanted():
    policy = torch.zeros(1, 1, 2, requires_grad=True)
    gradients = []
    for wanted in (0.0, 1.0):
        found = pair_terms(policy, torch.zeros(1, 1, 2), beta=1.0, wanted_margin=torch.tensor([wanted]))
        gradients.append(torch.autograd.grad(found.dpo.sum(), policy)[0][0, 0])
    assert gradients[0][0] < 0 < gradients[0][1]
    assert gradients[1][0] < gradients[0][0] and gradients[1][1] > gradients[0][1]


def test_dpop_acts_only_where_the_chosen_side_has_fallen():
    policy = torch.tensor([[[-2.0, 0.0]], [[2.0, 0.0]]], requires_grad=True)
    found = pair_terms(policy, torch.zeros(2, 1, 2), beta=1.0, wanted_margin=torch.zeros(2))
    (gradient,) = torch.autograd.grad(found.dpop.sum(), policy)
    assert gradient.tolist() == [[[-1.0, 0.0]], [[0.0, 0.0]]]


def test_k3_is_0_for_equals_and_above_else():
    values = k3(torch.tensor([-1.0, -1.0, -1.0]), torch.tensor([-1.0, -3.0, 0.5]))
    assert values[0] == 0 and (values[1:] > 0).all()
