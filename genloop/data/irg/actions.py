"""Executable actions: operations on pixels that repair a diagnosis, and the edit of a prompt where none can.

Each operation is a function of the image and its parameters alone. `regenerate` makes a new image from a prompt; what
draws it is handed over by the caller.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from genloop.data.irg.diagnose import is_reversible
from genloop.data.irg.features import reduction
from genloop.data.irg.record import Action, Diagnosis, Features, Intent, Issue
from genloop.data.pixels import luminance
from genloop.registry import require


@dataclass(frozen=True, slots=True)
class Target:
    """What operations on exposure and contrast aim at."""

    brightness: float
    contrast: float


TARGETS: Mapping[Intent, Target] = {
    "neutral": Target(0.47, 0.12),
    "dark": Target(0.18, 0.05),
    "bright": Target(0.72, 0.16),
}
Redraw = Callable[[np.ndarray, str, float], np.ndarray]  # image, prompt, strength -> image
_EDITS: Mapping[Issue, str] = {
    "underexposed": "brighter exposure with open shadows",
    "overexposed": "lower exposure without clipped highlights",
    "low_contrast": "full tonal range",
    "color_cast": "neutral white balance",
    "noise": "clean and free of noise",
    "blur": "in sharp focus",
}
_ORDER: Sequence[Issue] = ("noise", "color_cast", "underexposed", "overexposed", "low_contrast", "blur")


def execute(image: np.ndarray, action: Action, redraw: Redraw | None = None) -> np.ndarray:
    """(H, W, 3) uint8 and an action -> the new image, same shape. ValueError for parameters that do not fit.

    `redraw` is asked for `regenerate`; without it that action is a ValueError.
    """
    if action.op == "regenerate":
        if redraw is None:
            raise ValueError("regenerate: nothing here draws images; only operations on pixels can be executed")
        prompt = action.params.get("prompt")
        if not isinstance(prompt, str) or not prompt:
            raise ValueError("regenerate: needs a prompt")
        return redraw(image, prompt, _number(action, "strength", 0.0, 1.0))
    operation, bounds = _OPERATIONS[action.op]
    if extra := sorted(action.params.keys() - bounds.keys()):
        raise ValueError(f"{action.op}: unknown parameter {extra[0]!r} ({', '.join(bounds) or 'it has none'})")
    values = {name: _number(action, name, *ends) for name, ends in bounds.items()}
    return operation(image, **values)


def propose(
    features: Features, found: Sequence[Diagnosis], intent: Intent, instruction: str, *, again: bool = False
) -> tuple[Action, ...]:
    """What repairs the diagnoses, in the order of execution; `regenerate` alone where one of them is irreversible.

    `again`: operations on pixels have been taken back, so the image is to be made again.
    An exposure changes the contrast, which is looked at again after it.
    """
    if not found:
        return ()
    if again or not all(map(is_reversible, found)):
        return (
            Action(op="regenerate", params={"prompt": edit_prompt(instruction, found), "strength": _strength(found)}),
        )
    by_issue = {diagnosis.issue: diagnosis for diagnosis in found}
    if by_issue.keys() & {"underexposed", "overexposed"}:
        by_issue.pop("low_contrast", None)
    return tuple(_repair(features, by_issue[issue], intent) for issue in _ORDER if issue in by_issue)


def edit_prompt(instruction: str, found: Sequence[Diagnosis]) -> str:
    """The instruction with what would have prevented the diagnoses; unchanged where there is none."""
    parts = [instruction.rstrip(" .")]
    for diagnosis in found:
        parts.append(_EDITS.get(diagnosis.issue) or _content_edit(diagnosis))
    return ", ".join(dict.fromkeys(parts))


def _content_edit(diagnosis: Diagnosis) -> str:
    """ "exactly 3 circles", "the star is red", "the star is left of the other object" """
    evidence = diagnosis.evidence[0]
    what, _, shape = evidence.feature.partition(":")
    if what == "count":
        number = int(float(evidence.threshold))
        return f"no {shape}" if number == 0 else f"exactly {number} {shape}{'' if number == 1 else 's'}"
    if what == "color":
        return f"the {shape} is {evidence.threshold}"
    return f"the {shape} is {evidence.threshold} the other object"


def _strength(found: Sequence[Diagnosis]) -> float:
    """Share of the image that is drawn again: more for worse issues."""
    return round(0.4 + 0.4 * max(diagnosis.severity for diagnosis in found), 2)


def _repair(features: Features, diagnosis: Diagnosis, intent: Intent) -> Action:
    """The operation on pixels for one reversible issue."""
    bright = min(max(features.brightness, 0.005), 0.995)
    if diagnosis.issue == "underexposed":
        gamma = float(np.log(TARGETS[intent].brightness) / np.log(bright))
        return Action(op="gamma", params={"gamma": round(min(max(gamma, 0.1), 5.0), 2)})
    if diagnosis.issue == "overexposed":
        return Action(op="exposure", params={"gain": round(max(TARGETS[intent].brightness / bright, 0.1), 2)})
    if diagnosis.issue == "low_contrast":
        factor = min(TARGETS[intent].contrast / max(features.contrast, 0.005), 20.0)
        low = features.brightness - features.brightness / factor
        return Action(op="stretch", params={"low": round(low, 3), "high": round(low + 1 / factor, 3)})
    if diagnosis.issue == "color_cast":
        return Action(op="grey_world")
    if diagnosis.issue == "noise":
        return Action(op="denoise", params={"sigma": features.noise})
    return Action(op="unsharp", params={"radius": 1.5, "amount": 1.5})


def _number(action: Action, name: str, low: float, high: float) -> float:
    value = action.params.get(name)
    if not isinstance(value, float | int) or isinstance(value, bool) or not low <= value <= high:
        raise ValueError(f"{action.op}: {name} must be a number from {low:g} to {high:g}, found {value!r}")
    return float(value)


def _to_uint8(scaled: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(scaled, 0, 1) * 255).astype(np.uint8)


def _gamma(image: np.ndarray, gamma: float) -> np.ndarray:
    levels = _to_uint8((np.arange(256) / 255) ** gamma)
    return levels[image]


def _exposure(image: np.ndarray, gain: float) -> np.ndarray:
    levels = _to_uint8(np.arange(256) / 255 * gain)
    return levels[image]


def _stretch(image: np.ndarray, low: float, high: float) -> np.ndarray:
    """Levels from `low` to `high` become 0 to 1, of all channels alike."""
    return _to_uint8((np.arange(256) / 255 - low) / max(high - low, 1 / 255))[image]


def _grey_world(image: np.ndarray) -> np.ndarray:
    """Factors that make the means of the channels equal and keep the luma's."""
    means = np.maximum(image.reshape(-1, 3).mean(axis=0), 1.0)
    return _to_uint8(image / 255 * (luminance(means) / means))


def _denoise(image: np.ndarray, sigma: float) -> np.ndarray:
    """Non-local means (Buades et al. 2005) in patches of 5 pixels; `sigma` in levels of 8 bits"""
    restoration = require("skimage.restoration", "corpus")
    found = restoration.denoise_nl_means(
        image / 255, patch_size=5, patch_distance=6, h=0.8 * sigma / 255, sigma=sigma / 255, channel_axis=2
    )
    return _to_uint8(found)


def _unsharp(image: np.ndarray, radius: float, amount: float) -> np.ndarray:
    """The image plus `amount` times its difference from a Gaussian blur; `radius` is its sigma at 128 pixels."""
    from scipy.ndimage import gaussian_filter

    radius *= reduction(image.shape)
    scaled = image / 255
    return _to_uint8(scaled + amount * (scaled - gaussian_filter(scaled, (radius, radius, 0))))


_OPERATIONS: Mapping[str, tuple[Callable[..., np.ndarray], Mapping[str, tuple[float, float]]]] = {
    "gamma": (_gamma, {"gamma": (0.05, 10.0)}),
    "exposure": (_exposure, {"gain": (0.05, 10.0)}),
    "stretch": (_stretch, {"low": (-5.0, 5.0), "high": (-5.0, 5.0)}),
    "grey_world": (_grey_world, {}),
    "denoise": (_denoise, {"sigma": (0.0, 100.0)}),
    "unsharp": (_unsharp, {"radius": (0.3, 10.0), "amount": (0.0, 5.0)}),
}
