"""The terms of DPO (Rafailov et al. 2023), each log-probability estimated several times. U = pairs, D = draws.

z = beta ((log p_w - log q_w) - (log p_l - log q_l)), p the policy, q the reference, w chosen, l rejected, each
log-ratio a mean over the draws. The loss of a pair is -log sigmoid(z - m), where m is the margin wanted of it (0 in
plain DPO; Amini et al. 2024). DPOP's term, max(0, log q_w - log p_w), keeps the chosen side from falling (Pal et al.
2024, who put it inside of the sigmoid; here it is a term of its own, so that it acts however large z is). It counts
from ROUNDING on: before step 1 both are equal, and rounding must not decide on its gradient.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

ROUNDING = 1e-3  # of a sum of log-probabilities in single precision


@dataclass(frozen=True, slots=True)
class PairTerms:
    """One number for each pair, (U,) each."""

    dpo: Tensor
    dpop: Tensor
    margin: Tensor  # z


def pair_terms(policy: Tensor, reference: Tensor, *, beta: float, wanted_margin: Tensor) -> PairTerms:
    """Log-probabilities (U, D, 2), chosen first, and the margins wanted (U,) -> the terms of each pair."""
    ratios = (policy - reference).mean(1)  # (U, 2)
    margin = beta * (ratios[:, 0] - ratios[:, 1])
    return PairTerms(-F.logsigmoid(margin - wanted_margin), F.relu(-ratios[:, 0] - ROUNDING), margin)


def share_won(margin: Tensor, beta: float) -> Tensor:
    """Margins (U,) -> 1 where the policy prefers the chosen side more than the reference does; equals count half."""
    return ((margin / (2 * beta * ROUNDING)).clamp(-1, 1).trunc() + 1) / 2


def k3(policy: Tensor, reference: Tensor) -> Tensor:
    """log p and log q of tokens -> estimates of their part in KL(p || q), never below 0 (Schulman 2020)."""
    gap = reference - policy
    return torch.expm1(gap) - gap
