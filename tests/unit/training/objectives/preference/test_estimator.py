"""Masks of pairs and the log-probabilities that are looked up under them."""

import copy

import numpy as np
import pytest
import torch

from genloop.training.objectives.log_probs import code_log_probs
from genloop.training.objectives.preference.losses import pair_terms
from tests.worlds.preference import estimator_of, tiny_pair
from tests.worlds.tiny_showo import tiny_showo


def other_model(scale: float = 0.02):
    """The tiny model, moved a little."""
    model = copy.deepcopy(tiny_showo())
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += scale * torch.randn(parameter.shape, generator=generator)
    return model


@torch.no_grad()
def sums(estimator, model, pair, row=0, epoch=0):
    """(D, 2) of one pair."""
    rows = estimator.lay_out([pair], [estimator.draws_of(pair, row, epoch)])
    return estimator.log_probs(model, rows).sum(3)[0]


def test_both_sides_of_a_plain_pair_have_one_mask_and_one_caption():
    model = tiny_showo()
    pair = tiny_pair(0, model, localised=False)
    draws = estimator_of(model, draws=40).draws_of(pair, 0, 0)
    assert all((draw.hidden[0] == draw.hidden[1]).all() and (draw.counted == draw.hidden).all() for draw in draws)
    assert 0 < sum(draw.is_dropped == (True, True) for draw in draws) < 40
    assert len({draw.hidden.tobytes() for draw in draws}) > 10


def test_sides_of_a_localised_pair_are_one_row_and_only_differences_count():
    model = tiny_showo()
    pair = tiny_pair(1, model, localised=True)
    estimator = estimator_of(model, draws=8)
    draws = estimator.draws_of(pair, 1, 0)
    assert all((draw.counted[0] == pair.differs).all() and draw.hidden[0][pair.differs].all() for draw in draws)
    assert any((draw.hidden[0] & ~pair.differs).any() for draw in draws)
    assert len(estimator.lay_out([pair], [draws]).ids) == 8
    plain = tiny_pair(0, model, localised=False)
    assert len(estimator.lay_out([plain], [estimator.draws_of(plain, 0, 0)]).ids) > 8


@pytest.mark.parametrize("guidance", [0.0, 1.75])
@pytest.mark.parametrize("localised", [False, True])
def test_sums_are_those_of_single_rows(guidance, localised):
    model = tiny_showo()
    pair = tiny_pair(5, model, localised=localised)
    estimator = estimator_of(model, guidance_scale=guidance)
    found = sums(estimator, model, pair)
    for number, draw in enumerate(estimator.draws_of(pair, 0, 0)):
        for side, codes in enumerate((pair.chosen, pair.rejected)):
            inputs = torch.from_numpy(np.where(draw.hidden[side], model.config.codebook_size, codes))[None]
            with torch.no_grad():
                by_row = code_log_probs(
                    model,
                    estimator.layout,
                    [pair.prompt],
                    inputs,
                    torch.from_numpy(codes)[None],
                    dropped=[draw.is_dropped[side]],
                    guidance_scale=guidance,
                )[0][torch.from_numpy(draw.counted[side])].sum()
            assert float(found[number, side]) == pytest.approx(float(by_row), abs=1e-3)


def test_draws_are_keyed_by_pair_draw_and_epoch():
    model = tiny_showo()
    pair = tiny_pair(0, model, localised=False)

    def masks(row, epoch, **changes):
        return [draw.hidden.tobytes() for draw in estimator_of(model, **changes).draws_of(pair, row, epoch)]

    assert masks(0, 0) == masks(0, 0, draws=3)[:2]
    assert len({*masks(0, 0), *masks(0, 1), *masks(1, 0), *masks(0, 0, seed=4)}) == 8


def test_the_released_variant_draws_each_side_apart_and_counts_soi_and_eoi():
    model = tiny_showo()
    pair = tiny_pair(0, model, localised=False)
    estimator = estimator_of(model, variant="released", draws=20)
    draws = estimator.draws_of(pair, 0, 0)
    assert any((draw.hidden[0] != draw.hidden[1]).any() for draw in draws)
    assert any(draw.is_dropped[0] != draw.is_dropped[1] for draw in draws)
    with torch.no_grad():
        found = estimator.log_probs(model, estimator.lay_out([pair], [draws]))
    assert (found[..., 0] < 0).all() and (found[..., -1] < 0).all()
    assert int((found[0, :, 0] < 0).sum()) == estimator.num_labels(0, 0)


def test_masks_that_policy_and_reference_share_give_a_log_ratio_of_less_variance():
    model, moved = tiny_showo(), other_model()
    pair = tiny_pair(0, model, localised=False)
    shared, other = (estimator_of(model, draws=64, seed=seed, drop_captions=0.0) for seed in (3, 4))
    policy, reference = sums(shared, moved, pair), sums(shared, model, pair)
    apart = sums(other, model, pair)
    antithetic, independent = ((policy - q)[:, 0] - (policy - q)[:, 1] for q in (reference, apart))
    assert antithetic.var() <= independent.var()


def test_a_pair_weighs_the_same_in_any_batch():
    model = tiny_showo()
    pairs = [tiny_pair(number, model, localised=number % 2 == 1) for number in range(4)]
    estimator = estimator_of(model)
    draws = [estimator.draws_of(pair, row, 0) for row, pair in enumerate(pairs)]
    with torch.no_grad():
        together = estimator.log_probs(model, estimator.lay_out(pairs, draws)).sum(3)
    alone = torch.stack([sums(estimator, model, pair, row) for row, pair in enumerate(pairs)])
    assert torch.allclose(together, alone, atol=1e-3)
    terms = pair_terms(together, alone, beta=0.1, wanted_margin=torch.zeros(4))
    assert terms.margin.abs().max() < 1e-3
