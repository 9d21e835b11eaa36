"""Random numbers keyed by what they are for: nothing else, above all not the rows beside, may change a draw.

B = rows, n = image tokens, R = tokens to draw, K = codebook size. Numbers are drawn on the CPU by a counter-based
generator (Philox), whose key is a hash of the candidate's Seed, the round, the step and the purpose.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from genloop.records import Seed

DrawTokens = Callable[[Tensor, tuple[Tensor, Tensor]], Tensor]
"""probs (R, K) of the tokens at (rows (R,), positions (R,)) -> codes (R,) int64"""


class NoiseSource(Protocol):
    """Every random decision of a sampler: each row at its step (B,) of its round (B,), keyed by its seed (B,)."""

    def tokens(self, seeds: Sequence[Seed], num_tokens: int, steps: Sequence[int], rounds: Sequence[int]) -> DrawTokens:
        """How to draw the tokens of these steps."""

    def uniforms(self, seeds: Sequence[Seed], num_tokens: int, steps: Sequence[int], rounds: Sequence[int]) -> Tensor:
        """(B, n) float32 in [0, 1) on the CPU, for the choice of the tokens that are kept."""


class KeyedNoise:
    """Draws by inverse CDF: one uniform number per token."""

    def tokens(self, seeds: Sequence[Seed], num_tokens: int, steps: Sequence[int], rounds: Sequence[int]) -> DrawTokens:
        """See `NoiseSource.tokens`."""
        rows = [_generator(*key, "token").random(num_tokens) for key in zip(seeds, steps, rounds)]
        keyed = torch.from_numpy(np.stack(rows))  # (B, n) float64
        there: dict[torch.device, Tensor] = {}  # copied once, indexed there: nothing waits for the device

        def draw(probs: Tensor, at: tuple[Tensor, Tensor]) -> Tensor:
            if probs.device not in there:
                there[probs.device] = keyed.to(probs.device)
            return inverse_cdf(probs, there[probs.device][at])

        return draw

    def uniforms(self, seeds: Sequence[Seed], num_tokens: int, steps: Sequence[int], rounds: Sequence[int]) -> Tensor:
        """See `NoiseSource.uniforms`."""
        keys = zip(seeds, steps, rounds)
        rows = [_generator(*key, "choice").random(num_tokens, dtype=np.float32) for key in keys]
        return torch.from_numpy(np.stack(rows))


def half_masks(seed: Seed, round: int, num_tokens: int) -> np.ndarray:
    """(3, n) bool: a random half, the other half, and another random half. Every token is in one of them at least."""
    chance = _generator(seed, 0, round, "halves")
    first, other = (np.argsort(chance.permutation(num_tokens)) < num_tokens // 2 for _ in range(2))
    return np.stack([first, ~first, other])


def random_cells(seed: Seed, round: int, num_cells: int, count: int) -> np.ndarray:
    """(num_cells,) bool with `count` True: which cells of an image are noised again."""
    return _generator(seed, 0, round, "renoise").permutation(num_cells) < count


def word_uniforms(seed: Seed, num_tokens: int) -> Tensor:
    """(num_tokens,) float64 in [0, 1) for the words of an answer; the first ones are the same for any number."""
    return torch.from_numpy(_generator(seed, 0, 0, "answer").random(num_tokens))


def gaussian(seed: Seed, shape: tuple[int, ...], *, step: int, round: int, purpose: str) -> Tensor:
    """Standard normal numbers of a shape, float32 on the CPU: the noise of one latent."""
    return torch.from_numpy(_generator(seed, step, round, purpose).standard_normal(shape, dtype=np.float32))


def torch_seed(seed: Seed) -> int:
    """What keys a generator of torch, for pipelines that draw their own noise."""
    return int(_generator(seed, 0, 0, "torch").integers(1 << 63))


def inverse_cdf(probs: Tensor, uniform: Tensor) -> Tensor:
    """probs (R, K), uniform (R,) float64 in [0, 1) -> the first code whose cumulated probability exceeds it, (R,)"""
    cumulated = probs.cumsum(-1, dtype=torch.float64)
    target = uniform[:, None] * cumulated[:, -1:]
    return torch.searchsorted(cumulated, target, right=True)[:, 0].clamp(max=probs.shape[-1] - 1)


def gumbel(uniform: Tensor) -> Tensor:
    """(B, n) in [0, 1) -> standard Gumbel noise, logarithms clamped at 1e-20 as in MaskGIT."""
    return -(-(uniform.clamp(min=1e-20).log())).clamp(min=1e-20).log()


def _generator(seed: Seed, step: int, round: int, purpose: str) -> np.random.Generator:
    text = f"{seed.run}/{seed.prompt}/{seed.sample}/{seed.candidate}/{round}/{step}/{purpose}"
    digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))
