"""Keyed noise: a draw depends on its key alone, and draws follow their distribution."""

from dataclasses import replace

import pytest
import torch

from genloop.records import Seed
from genloop.sampling.noise import KeyedNoise, gumbel, inverse_cdf

SEED = Seed(1, 2, 3, 4)
OTHERS = [replace(SEED, **{name: 9}) for name in ("run", "prompt", "sample", "candidate")]


def test_every_part_of_the_key_matters() -> None:
    noise = KeyedNoise()
    drawn = [noise.uniforms([seed], 8, [0], [0]) for seed in [SEED, *OTHERS]]
    drawn += [noise.uniforms([SEED], 8, [1], [0]), noise.uniforms([SEED], 8, [0], [1])]
    assert len({tuple(row[0].tolist()) for row in drawn}) == len(drawn)


def test_nothing_but_the_key_matters() -> None:
    noise = KeyedNoise()
    torch.manual_seed(5)
    alone = noise.uniforms([SEED], 8, [2], [0])
    torch.manual_seed(6)
    among = noise.uniforms([*OTHERS, SEED], 8, [*range(len(OTHERS)), 2], [0] * (len(OTHERS) + 1))
    assert torch.equal(alone[0], among[4])
    assert alone.dtype == torch.float32
    assert (alone >= 0).all()
    assert (alone < 1).all()


def test_a_token_is_drawn_alike_whatever_is_drawn_beside_it() -> None:
    noise = KeyedNoise()
    probs = torch.rand(6, 50, generator=torch.Generator().manual_seed(0)).softmax(-1)
    at = torch.tensor([0, 0, 1, 1, 2, 2]), torch.tensor([3, 7, 0, 3, 1, 9])
    seeds = [SEED, *OTHERS[:2]]
    together = noise.tokens(seeds, 10, [0] * len(seeds), [0] * len(seeds))(probs, at)
    for index in range(6):
        row, position = at[0][index], at[1][index]
        draw = noise.tokens([seeds[row]], 10, [0], [0])
        assert draw(probs[index : index + 1], (torch.tensor([0]), position[None]))[0] == together[index]


def test_a_code_without_probability_is_never_drawn() -> None:
    probs = torch.tensor([[0.0, 0.5, 0.0, 0.5, 0.0]]).expand(5, -1)
    uniform = torch.tensor([0.0, 0.25, 0.5, 0.75, 1 - 2**-53], dtype=torch.float64)
    assert inverse_cdf(probs, uniform).tolist() == [1, 1, 3, 3, 3]


def test_draws_follow_the_probabilities() -> None:
    probs = torch.tensor([0.05, 0.6, 0.1, 0.25])
    noise = KeyedNoise()
    num = 4000
    at = torch.zeros(num, dtype=torch.int64), torch.arange(num)
    drawn = noise.tokens([SEED], num, [0], [0])(probs.expand(num, -1), at)
    share = torch.bincount(drawn, minlength=4) / num
    assert ((share - probs).abs() < 4 * (probs * (1 - probs) / num).sqrt()).all()


def test_gumbel_noise_has_its_moments_and_no_infinities() -> None:
    noise = gumbel(KeyedNoise().uniforms([SEED], 20000, [0], [0]))
    assert noise.mean().item() == pytest.approx(0.5772, abs=0.04)
    assert noise.var().item() == pytest.approx(1.6449, abs=0.08)
    assert gumbel(torch.tensor([[0.0, 1.0]])).isfinite().all()
