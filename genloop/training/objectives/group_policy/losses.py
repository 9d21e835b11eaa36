"""The loss of masked-token GRPO, and the one that Mask-GRPO (arXiv 2510.13418) released, as pure functions.

B = rows (states of images), n = image tokens. log p, of the policy and of what it is compared with, are (B, n) and 0
where a token does not count; weights (B, n) say how much each counts in its row.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Terms:
    """Per row, (B,): the loss with a gradient, and what is reported of it."""

    loss: Tensor
    ratio: Tensor  # mean over the tokens
    clipped: Tensor  # share of the tokens, or of the row, whose ratio is beyond the range and has no gradient
    kl: Tensor


def group_policy_terms(
    log_p: Tensor,
    old: Tensor,
    reference: Tensor | None,
    advantages: Tensor,
    weights: Tensor,
    *,
    clip_range: tuple[float, float],
    kl: float,
    by_sequence: bool,
) -> Terms:
    """-min(r A, clip(r) A) + kl * k3, r = p / p_old of a token or of a row (Shao et al. 2024, Zheng et al. 2025).

    advantages (B,); k3 = exp(d) - d - 1 with d = log p_reference - log p (Schulman 2020).
    """
    difference, size = log_p - old, _sizes(weights)
    if by_sequence:
        counts = (weights > 0).float()
        mean = (difference * counts).sum(1) / counts.sum(1).clamp(min=1)
        gain, beyond = _clipped_gain(mean.exp(), advantages, clip_range)
        ratio, clipped, gain = mean.exp(), beyond.float(), gain * size
    else:
        gains, beyond = _clipped_gain(difference.exp(), advantages[:, None], clip_range)
        ratio = (difference.exp() * weights).sum(1) / size
        clipped, gain = (beyond * weights).sum(1) / size, (gains * weights).sum(1)
    divergence = torch.zeros_like(gain) if reference is None else (k3(reference - log_p) * weights).sum(1)
    return Terms(kl * divergence - gain, ratio.detach(), clipped.detach(), divergence.detach())


def published_terms(
    log_p: Tensor, advantages: Tensor, weights: Tensor, *, clip_range: tuple[float, float], kl: float
) -> Terms:
    """Mask-GRPO's released arithmetic: every row has the mean over the rows, and nothing is clipped or held back.

    Its ratio is exp(log p - itself without gradient), always 1; the smaller of two equal means is taken; the divergence
    is from the same log p without gradient, so that its value is 0 and its gradient -1 + 1.
    """
    fixed = log_p.detach()
    ratios, size = (log_p - fixed).exp(), _sizes(weights)
    plain, clipped = ((found * weights).sum(1).mul(advantages).mean() for found in (ratios, ratios.clamp(*clip_range)))
    divergence = (k3(fixed - log_p) * weights).sum(1)
    outside = (ratios < clip_range[0]) | (ratios > clip_range[1])
    loss = kl * divergence - torch.minimum(plain, clipped)
    ratio, beyond = ((found.detach() * weights).sum(1) / size for found in (ratios, outside))
    return Terms(loss, ratio, beyond, divergence.detach())


def k3(difference: Tensor) -> Tensor:
    """exp(d) - d - 1: its mean over draws of p is the divergence KL(p | q), with d = log q - log p; never below 0."""
    return difference.exp() - difference - 1


def _sizes(weights: Tensor) -> Tensor:
    """(B, n) -> (B,): what means over the tokens of a row are divided by; a row may have none."""
    return weights.sum(1).clamp(min=1e-9)


def _clipped_gain(ratio: Tensor, advantages: Tensor, clip_range: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """min(r A, clip(r) A), and where the clipped one is the smaller."""
    plain, clipped = ratio * advantages, ratio.clamp(*clip_range) * advantages
    return torch.minimum(plain, clipped), clipped < plain
