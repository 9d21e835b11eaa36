"""When a training is in trouble: pure rules on numbers, one function a kind of alarm.

    divergence        loss or KL not finite, or far above its running median
    chosen_log_prob   the log-probability of what was chosen falls, a known failure of DPO (Pal et al. 2024)
    reward_hacking    the training's judge rises while a held-out judge falls, on the same prompts and noise
    image_statistics  the looks of the images leave those of step 0

The last two compare the images of fixed prompts pairwise with those of step 0, and go by the interval of the mean
difference, not by the difference.
P = prompts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median

import numpy as np

from genloop.stats.intervals import Interval
from genloop.stats.paired import mean_difference
from genloop.training.guards.settings import Alarm, AlarmSettings, GuardSettings

WATCHED = ("loss", "kl")  # keys of metrics.jsonl that must not run away
CHOSEN, CHOSEN_RATIO, HELD_OUT_CHOSEN = "chosen_log_prob", "chosen_log_ratio", "held_out_chosen_log_prob"
FIRST_LINES = 3  # of training batches, that make the first level of the chosen log-probability, and its newest
_TO_SIGMA = 1.4826  # median absolute deviation -> standard deviation, of normal numbers
_SMALLEST_SPREAD = 0.05  # of a running level, as a share of it: a level that hardly moves is not diverging
_SMALLEST_NATS = 0.01  # the same for levels near 0, such as that of a KL at first
_SMALLEST_DEVIATION = 0.02  # between the images of step 0


@dataclass(frozen=True, slots=True)
class Found:
    """One alarm: its kind, and what was seen, in one line."""

    kind: Alarm
    text: str


def divergence(
    history: Mapping[str, Sequence[float]], line: Mapping[str, float], settings: AlarmSettings
) -> list[Found]:
    """Of a new line of metrics.jsonl, given the values of each key in the lines before it."""
    found = []
    for key in WATCHED:
        before = list(history.get(key, ()))[-settings.window :]
        if key not in line:
            if key == "loss" and line.get("skipped"):
                found.append(Found("divergence", f"no step since the last line had a finite {key}"))
            continue
        value = line[key]
        if not np.isfinite(value):
            found.append(Found("divergence", f"{key} is {value}"))
        elif len(before) >= min(settings.window, 5):
            level = median(before)
            spread = _TO_SIGMA * median(abs(old - level) for old in before)
            limit = level + settings.divergence * max(spread, _SMALLEST_SPREAD * abs(level), _SMALLEST_NATS)
            if value > limit:
                text = f"{key} {value:.4g} is above {limit:.4g}; its median over {len(before)} lines is {level:.4g}"
                found.append(Found("divergence", text))
    return found


def falling_chosen(history: Mapping[str, Sequence[float]], settings: GuardSettings) -> list[Found]:
    """Of the values of HELD_OUT_CHOSEN, else of CHOSEN_RATIO, else of CHOSEN, in all lines so far."""
    held_out, ratios, chosen = (list(history.get(key, ())) for key in (HELD_OUT_CHOSEN, CHOSEN_RATIO, CHOSEN))
    if held_out:  # the same pairs and masks each time: nothing to average
        key, first, fall = HELD_OUT_CHOSEN, held_out[0], held_out[0] - held_out[-1]
    elif len(chosen) < 2 * FIRST_LINES:
        return []
    elif ratios:  # against the reference, under the same masks
        key, first, fall = CHOSEN_RATIO, fmean(chosen[:FIRST_LINES]), -fmean(ratios[-FIRST_LINES:])
    else:
        key, first = CHOSEN, fmean(chosen[:FIRST_LINES])
        fall = first - fmean(chosen[-FIRST_LINES:])
    limit = settings.chosen_fall * abs(first)
    text = f"by {key} the log-probability of what was chosen, {first:.4g} at first, fell by {fall:.4g}, more than"
    return [Found("chosen_log_prob", f"{text} {limit:.4g}")] if fall > limit else []


def reward_hacking(judge: Interval, held_out: Interval, num_prompts: int) -> list[Found]:
    """Of the mean changes of two judges' answers since step 0, over the same prompts."""
    if not (judge.low > 0 and held_out.high < 0):
        return []
    text = f"since step 0 the judge rose by {shown(judge)} while the held-out judge fell by {shown(held_out)}"
    return [Found("reward_hacking", f"{text} (n={num_prompts} prompts)")]


def strange_images(
    now: Mapping[str, Sequence[float]], first: Mapping[str, Sequence[float]], settings: GuardSettings
) -> list[Found]:
    """Of each statistic (P,) of the images now and at step 0."""
    found: list[Found] = []
    if settings.image_distance is None:
        return found
    for name, before in first.items():
        deviation = max(float(np.std(before)), _SMALLEST_DEVIATION)
        change = change_of(now[name], before, settings.level)
        nearest = max(change.low, -change.high, 0.0) / deviation
        if nearest > settings.image_distance:
            text = (
                f"{name.replace('_', ' ')} changed by {shown(change)} since step 0 (n={len(before)} images), at least"
            )
            found.append(Found("image_statistics", f"{text} {nearest:.2f} deviations between the images of step 0"))
    return found


def change_of(now: Sequence[float], before: Sequence[float], level: float) -> Interval:
    """The mean change (P,) - (P,) with its interval; prompts without a number in one of them are left out."""
    pairs = [(a, b) for a, b in zip(now, before, strict=True) if np.isfinite(a) and np.isfinite(b)]
    return mean_difference([a - b for a, b in pairs], level=level)


def shown(interval: Interval) -> str:
    """A change with its interval."""
    return f"{interval.estimate:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"
