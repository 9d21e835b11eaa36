"""How many tokens stay masked and how much noise the choice carries, step by step (Chang et al. 2022). No torch.

Values are rounded to float32 at the points where the reference rounds, from correctly rounded float64 functions:
the counts are the published ones on every machine.
"""

import math

import numpy as np

from genloop.sampling.maskgit.settings import TemperatureMode

_FLOOR = 1e-6


def mask_ratio(schedule: str, time: float) -> float:
    """The share of tokens that is masked at `time` in [0, 1]; 1 at 0, about 0 at 1; float32 precision."""
    t = np.float32(time)
    if schedule == "cosine":
        angle = np.float32(np.float32(t * np.float32(math.pi)) * np.float32(0.5))
        return float(np.float32(math.cos(float(angle))))
    if schedule == "linear":
        return _clamped(np.float32(1) - t)
    if schedule.startswith("pow"):
        return _clamped(np.float32(1) - np.float32(float(t) ** float(schedule.removeprefix("pow"))))
    if schedule == "sigmoid":
        start, end = np.float32(_sigmoid(-3.0)), np.float32(_sigmoid(3.0))
        value = np.float32(_sigmoid(float(np.float32(t * np.float32(6) - np.float32(3)))))
        return _clamped(np.float32(np.float32(end - value) / np.float32(end - start)))
    raise ValueError(f"unknown schedule {schedule!r} (cosine, linear, sigmoid, pow followed by its exponent)")


def masked_after(schedule: str, step: int, num_steps: int, num_tokens: int) -> int:
    """How many of `num_tokens` the schedule leaves masked after `step` (from 0); may be 0 or less at the last."""
    ratio = np.float32(mask_ratio(schedule, (step + 1) / num_steps))
    return math.floor(np.float32(num_tokens) * ratio)


def choice_temperature(mode: TemperatureMode, temperature: float, step: int, num_steps: int) -> float:
    """The factor of the Gumbel noise on the choice of kept tokens at `step`.

    maskgit: T * (1 - (s+1)/S). cumulative and reference: T * prod over i <= s of (1 - (i+1)/S), as Show-o runs it.
    """
    if mode == "maskgit":
        return temperature * (1.0 - (step + 1) / num_steps)
    for done in range(step + 1):
        temperature = temperature * (1.0 - (done + 1) / num_steps)
    return temperature


def _clamped(value: np.float32) -> float:
    return float(np.clip(value, np.float32(_FLOOR), np.float32(1)))


def _sigmoid(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x))
