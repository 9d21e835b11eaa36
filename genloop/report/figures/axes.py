"""Axes: values -> pixels, linear or logarithmic, with round ticks."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

_NO_SPREAD = 1e-9  # values as near as this are drawn as one


@dataclass(frozen=True, slots=True)
class Axis:
    """From `low` at pixel `first` to `high` at pixel `last`; `ticks` are (value, label)."""

    low: float
    high: float
    first: float
    last: float
    ticks: tuple[tuple[float, str], ...]
    is_log: bool = False

    def __call__(self, value: float) -> float:
        """The pixel of a value."""
        low, high = self.low, self.high
        if self.is_log:
            value, low, high = math.log(value), math.log(low), math.log(high)
        return self.first + (self.last - self.first) * (value - low) / (high - low)


def linear(values: Sequence[float], first: float, last: float, *, percent: bool = False, num_ticks: int = 6) -> Axis:
    """An axis from the round number below the values to the one above; `percent` labels shares as percent."""
    low, high = min(values), max(values)
    if high - low < _NO_SPREAD:
        low, high = low - 0.05, high + 0.05
    step = _round_step((high - low) / num_ticks)
    start, stop = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = tuple((i * step, f"{100 * i * step:g}" if percent else f"{i * step:g}") for i in range(start, stop + 1))
    return Axis(start * step, stop * step, first, last, ticks)


def logarithmic(values: Sequence[float], first: float, last: float, *, at: Sequence[float] = ()) -> Axis:
    """A logarithmic axis with a little room on both sides; ticks at 1, 2 and 5 times powers of ten, or at `at`."""
    low, high = min(values), max(values)
    if low <= 0:
        raise ValueError(f"a logarithmic axis needs values above 0, found {low:g}")
    room = max((high / low) ** 0.04, 1.02)
    low, high = low / room, high * room
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    places = list(at) or [digit * 10.0**power for power in powers for digit in (1, 2, 5)]
    ticks = tuple((place, f"{place:,.10g}") for place in places if low <= place <= high)
    return Axis(low, high, first, last, ticks, is_log=True)


def _round_step(step: float) -> float:
    """The smallest of 1, 2 and 5 times a power of ten that is not smaller."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step * (1 - 1e-9))
