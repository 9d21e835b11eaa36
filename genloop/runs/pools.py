"""Pools of exchangeable candidates: the rows of a `generate` run that drew all its candidates alike."""

import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from genloop.data.prompts import parse_metadata
from genloop.records import Prompt
from genloop.runs.generated import check_generated, metadata_of, read_generated
from genloop.runs.rows import GeneratedRow

EXCHANGEABLE = ("none", "best_of_n")  # strategies that finish every candidate, whatever a judge says


def read_pool_rows(run: Path) -> list[GeneratedRow]:
    """The rows of a finished `generate` run whose candidates make pools; ValueError otherwise."""
    check_generated(run, "source")
    rows = list(read_generated(run))
    for strategy in {row.strategy for row in rows}.difference(EXCHANGEABLE):
        raise ValueError(
            f"source: strategy {strategy!r} of {run} treats candidates unlike each other; a pool needs a run of "
            f"{' or '.join(EXCHANGEABLE)}"
        )
    return rows


def check_tokens(rows: Sequence[GeneratedRow], num_codes: int) -> None:
    """ValueError names the row whose finished candidates are not codes of a tokenizer with so many."""
    for row in rows:
        for candidate in (one for one in row.candidates if one.cut_at is None):
            if (largest := candidate.unpacked().max()) >= num_codes:
                raise ValueError(
                    f"source: prompt {row.prompt_index}, sample {row.sample}, candidate {candidate.candidate}: tokens up "
                    f"to {largest}, the tokenizer has {num_codes} codes"
                )


def read_prompts_of(
    run: Path, rows: Sequence[GeneratedRow], *, classes: Collection[str] | None = None
) -> dict[int, Prompt]:
    """{prompt_index: prompt} of the rows, from the metadata beside the images; `classes` are those it may name."""
    found: dict[int, Prompt] = {}
    for row in rows:
        index = row.prompt_index
        if index not in found:
            where, value = metadata_of(run, row)
            if row.tag is None:
                raise ValueError(f"{where}: prompt {index} {row.prompt!r} has no GenEval metadata to judge by")
            found[index] = parse_metadata(value, index, where=where, classes=classes)
    return found


def scored_row(
    row: GeneratedRow,
    prompt: Prompt,
    correct: Sequence[bool],
    scores: Mapping[str, Sequence[float]],
    judging: Mapping[str, float],
) -> dict[str, Any]:
    """One image's candidates as `scaling_curve` writes them: which are right, each judge's scores, what one costs.

    `judging`: the operations of asking a judge about one image. Scores are null where a judge gave none.
    """
    known = {name: [None if math.isnan(value) else value for value in values] for name, values in scores.items()}
    cost = {"generator_steps": row.num_steps, "flops": flops_of_one(row), "judging": dict(judging)}
    return {
        "prompt_index": row.prompt_index,
        "sample": row.sample,
        "prompt": row.prompt,
        "tag": row.tag,
        "metadata": prompt.metadata(),
        "correct": [bool(value) for value in correct],
        "scores": known,
        "cost": cost,
    }


def recorded_judge(row: GeneratedRow) -> tuple[list[float], float] | None:
    """The outcome scores that a row records for its candidates (NaN: none), and the operations of asking for one.

    None when it records no score.
    """
    scores = [candidate.p_yes.get("outcome") for candidate in row.candidates]
    if all(score is None for score in scores):
        return None
    alone = flops_of_one(row) or 0.0
    judging = row.cost.flops / len(scores) - alone if alone else 0.0
    judging = judging if judging > 1e-9 * alone else 0.0  # the rest is rounding
    return [math.nan if score is None else score for score in scores], judging


def flops_of_one(row: GeneratedRow) -> float | None:
    """The operations of one candidate without any judging; None in rows that do not tell."""
    cost = row.cost
    if cost.flops_without_search:
        return float(cost.flops_without_search)
    return float(cost.flops) / len(row.candidates) if cost.flops and not cost.judge_calls else None
