"""Guided generation against best-of-n at equal compute, from finished runs of generate on the same prompts.

`guided` is a run of the strategy `refine`; `pool` one of `best_of_n` with more candidates, of which the best of any k
are expected without bias; `refined`, if there is one, drew the refined prompts alone. All are scored by the same judge.
Compute is steps of the generator: k is the mean cost of the guided images, in images of the pool, and between two whole
k the expectation is interpolated.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from genloop.runs.generated import check_generated, read_generated
from genloop.runs.rows import GeneratedRow, RecordedCandidate
from genloop.stats.best_of_k import best_of_k
from genloop.stats.gains import gain
from genloop.stats.intervals import as_numbers

OUTCOME = "outcome"
Key = tuple[int, int]  # prompt and sample


def read_scored(run: Path, key: str) -> dict[Key, GeneratedRow]:
    """The rows of a finished run whose images a judge scored; ValueError that begins with the config key."""
    check_generated(run, key)
    rows = {(row.prompt_index, row.sample): row for row in read_generated(run)}
    if not rows or any(_score(row, row.chosen) is None for row in rows.values()):
        raise ValueError(f"{key}: {run} holds images without a score; draw it with a strategy that asks for outcomes")
    return rows


def compare_guided(
    guided: Mapping[Key, GeneratedRow],
    pool: Mapping[Key, GeneratedRow],
    refined: Mapping[Key, GeneratedRow] | None,
    seed: int,
) -> dict[str, Any]:
    """By round: mean score, cost, best-of-k at that cost, and the paired difference; ValueError for other prompts."""
    keys = sorted(guided)
    for name, rows in {"pool": pool, "refined": refined or guided}.items():
        if any(key not in rows or rows[key].prompt != guided[key].prompt for key in keys):
            raise ValueError(f"guided: the run of {name} lacks prompts of the guided one, or has others in their place")
    prompts = [guided[key].prompt_index for key in keys]
    curves = np.array([_best_of(pool[key]) for key in keys])  # (images, N)
    price = float(np.mean([pool[key].cost.generator_steps / len(pool[key].candidates) for key in keys]))
    walks = [_walk(guided[key]) for key in keys]
    rounds = []
    for number in range(max(len(walk) for walk in walks)):
        at = [walk[min(number, len(walk) - 1)] for walk in walks]
        k = float(np.mean([steps for _, steps in at])) / price
        rounds.append({"round": number} | _paired(_at(curves, k), [score for score, _ in at], prompts, k, seed))
    start = [walk[0][0] for walk in walks]
    end = [walk[-1][0] for walk in walks]
    found: dict[str, Any] = {
        "images": len(keys),
        "prompts": len(set(prompts)),
        "below start": sum(last < first for first, last in zip(start, end)),
        "rounds": rounds,
    }
    if refined is not None:
        scores = [_score(refined[key], refined[key].chosen) or 0.0 for key in keys]
        k = float(np.mean([refined[key].cost.generator_steps for key in keys])) / price
        found["refined prompt alone"] = _paired(_at(curves, k), scores, prompts, k, seed)
        found["guided over refined prompt alone"] = _paired(scores, end, prompts, k, seed)
    return found


def _walk(row: GeneratedRow) -> list[tuple[float, float]]:
    """(best score so far, steps so far) of an image at its start and after each round."""
    start = [one for one in row.candidates if one.redrawn is None]
    drawn = [one for one in row.candidates if one.redrawn is not None]
    ends = {one.candidate: _steps(one) for one in row.candidates}

    def walked(one: RecordedCandidate) -> int:
        return _steps(one) - (0 if one.parent is None else ends.get(one.parent, 0))

    best, steps = max((_score(row, one.candidate) or 0.0 for one in start), default=0.0), sum(map(walked, start))
    found: list[tuple[float, float]] = [(best, steps)]
    beside = row.cost.generator_steps - sum(map(walked, row.candidates))  # what choosing the cells took
    total: float = steps
    for one in drawn:
        best, total = max(best, _score(row, one.candidate) or 0.0), total + walked(one) + beside / len(drawn)
        found.append((best, total))
    return found


def _steps(one: RecordedCandidate) -> int:
    """All steps behind a candidate, those of its parents included; it was scored after the last."""
    return max((answer.step for answer in one.trace), default=0)


def _best_of(row: GeneratedRow) -> np.ndarray:
    scores = [_score(row, one.candidate) for one in row.candidates]
    known = [float("nan") if score is None else score for score in scores]
    return best_of_k(known, [0.0 if score is None else score for score in scores])


def _at(curves: np.ndarray, k: float) -> list[float]:
    """(images, N) -> the expected score at a cost of k images each; that of all N where k is more."""
    below = min(max(int(k), 1), curves.shape[1])
    above, part = min(below + 1, curves.shape[1]), max(0.0, k - below)
    return ((1 - min(part, 1.0)) * curves[:, below - 1] + min(part, 1.0) * curves[:, above - 1]).tolist()


def _paired(
    before: Sequence[float], after: Sequence[float], prompts: Sequence[int], k: float, seed: int
) -> dict[str, Any]:
    """`after` minus `before`, and what both cost in images."""
    found = gain(before, after, prompts, seed)
    difference = as_numbers(found.difference, len(before))
    return {"cost in images": k, "score": found.after, "best of k": found.before, "difference": difference}


def _score(row: GeneratedRow, candidate: int) -> float | None:
    return next((one.p_yes.get(OUTCOME) for one in row.candidates if one.candidate == candidate), None)
