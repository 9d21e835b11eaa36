"""What one denoising step computes, as numbers in a table: every solver here is linear in what it is given.

A latent at step i is x = alpha x0 + sigma eps. The network's output gives the predicted x0, and the next latent is

    x0_i = by_latent x + by_output output          x_next = a x + b x0_i + c x0_(i-1) + d noise

so that a step of rows at different steps takes a row of the table each. Sources: DDIM (Song et al. 2021), Euler
(Karras et al. 2022), DPM-Solver++ 2M (Lu et al. 2022), LCM (Luo et al. 2023), flow matching (Lipman et al. 2023); the
tables follow the schedulers of diffusers. n = steps. float64 throughout. No torch.
"""

from typing import Literal, NamedTuple

import numpy as np

Prediction = Literal["epsilon", "v_prediction", "sample", "flow"]


class Levels(NamedTuple):
    """The noise of each step, before it (`_in`) and behind it (`_out`), each (n,)."""

    timesteps: np.ndarray  # what the network is told
    alpha_in: np.ndarray
    sigma_in: np.ndarray
    alpha_out: np.ndarray
    sigma_out: np.ndarray
    start: float  # factor of the Gaussian noise that a path starts from
    scales: bool  # the network sees x / sqrt(alpha^2 + sigma^2), as where sigma grows beyond 1


class StepTable(NamedTuple):
    """The numbers of each step, each (n,); those of a path's first step, which has no x0 before it, are b_first."""

    levels: Levels
    scale: np.ndarray  # of what the network sees
    by_latent: np.ndarray
    by_output: np.ndarray
    a: np.ndarray
    b: np.ndarray
    b_first: np.ndarray
    c: np.ndarray
    d: np.ndarray

    @property
    def draws(self) -> bool:
        """Whether steps draw noise."""
        return bool(self.d.any())


def first_order(levels: Levels, prediction: Prediction) -> StepTable:
    """DDIM with eta 0, Euler and flow-match Euler: eps = (x - alpha x0) / sigma stays, its share shrinks."""
    a = levels.sigma_out / levels.sigma_in
    b, nothing = levels.alpha_out - a * levels.alpha_in, np.zeros_like(a)
    return StepTable(levels, *_prediction(levels, prediction), a, b, b, nothing, nothing)


def second_order(
    levels: Levels, prediction: Prediction, *, solver_type: str = "midpoint", ends_in_first_order: bool = True
) -> StepTable:
    """DPM-Solver++ 2M: x0 is extrapolated from the last two predictions; a step to sigma 0 is always of first order."""
    table = first_order(levels, prediction)
    with np.errstate(divide="ignore"):
        now = np.log(levels.alpha_in) - np.log(levels.sigma_in)
        then = np.log(levels.alpha_out) - np.log(levels.sigma_out)
    h = then - now
    before = np.concatenate([h[:1], np.diff(now)])  # of the step before
    extrapolated = table.b / 2 if solver_type == "midpoint" else _heun(levels, h)
    second = np.isfinite(h) & (np.arange(len(h)) > 0)
    second[-1] &= not ends_in_first_order
    more = np.where(second, extrapolated * np.where(second, h, 0.0) / before, 0.0)
    return table._replace(b=table.b + more, c=-more)


def consistency(levels: Levels, prediction: Prediction, *, timestep_scaling: float, sigma_data: float) -> StepTable:
    """LCM: the consistency function jumps to x0, fresh noise leads back to the next level."""
    scaled = levels.timesteps * timestep_scaling
    skip = sigma_data**2 / (scaled**2 + sigma_data**2)
    out = scaled / np.sqrt(scaled**2 + sigma_data**2)
    scale, by_latent, by_output = _prediction(levels, prediction)
    nothing = np.zeros_like(skip)
    jump = skip + out * by_latent, out * by_output
    return StepTable(
        levels, scale, *jump, nothing, levels.alpha_out, levels.alpha_out, nothing, levels.sigma_out.copy()
    )


def _heun(levels: Levels, h: np.ndarray) -> np.ndarray:
    """The factor of (x0_i - x0_(i-1)) h / h_before with solver_type=heun."""
    step = np.where(np.isfinite(h), h, 1.0)
    return levels.alpha_out * ((np.exp(-step) - 1) / step + 1)


def _prediction(levels: Levels, prediction: Prediction) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """-> scale, by_latent, by_output"""
    alpha, sigma = levels.alpha_in, levels.sigma_in
    scale = 1 / np.hypot(alpha, sigma) if levels.scales else np.ones_like(alpha)
    if prediction == "epsilon":
        return scale, 1 / alpha, -sigma / alpha
    if prediction == "v_prediction":
        return scale, alpha * scale * scale, -sigma * scale
    if prediction == "flow":
        return scale, np.ones_like(sigma), -sigma
    return scale, np.zeros_like(sigma), np.ones_like(sigma)
