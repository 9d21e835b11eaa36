"""A judge's calibration (Platt 1999), as training measured it on held-out prompts: calibration.json of a checkpoint.

    {"outcome": {"a": 0.7, "b": -0.2}, ...}

P(yes) = sigmoid(a (logit(yes) - logit(no)) + b). With a > 0 the order of answers stays, and P(yes) is a share of yes.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from genloop.reading import read_json_object
from genloop.registry import did_you_mean
from genloop.rewards.questions import KEYS

FILE = "calibration.json"
Calibration = Mapping[str, tuple[float, float]]  # question -> (a, b)


def read_calibration(folder: Path) -> Calibration:
    """That of a checkpoint folder; FileNotFoundError or ValueError in one line when there is none to go by."""
    path = folder / FILE
    if not path.is_file():
        raise FileNotFoundError(f"judge.options.calibrated: no file {path}; train_judge writes one, or leave it false")
    found = {question: _scale(question, row, path) for question, row in read_json_object(path).items()}
    if not found:
        raise ValueError(f"judge.options.calibrated: {path} is empty: nothing could be calibrated; leave it false")
    return found


def _scale(question: str, row: object, path: Path) -> tuple[float, float]:
    if question not in KEYS:
        raise ValueError(f"{path}: unknown question {question!r}{did_you_mean(question, KEYS)} ({', '.join(KEYS)})")
    numbers: list[Any] = [row.get(key) for key in ("a", "b")] if isinstance(row, dict) else []
    known = [float(number) for number in numbers if type(number) in (int, float) and math.isfinite(number)]
    if len(known) != 2:
        raise ValueError(f"{path}: {question} is {row!r}, expected the numbers a and b")
    a, b = known
    if a <= 0:
        raise ValueError(f"{path}: a of {question} is {a:g}, not above 0: its answers would be turned round; remove it")
    return a, b
