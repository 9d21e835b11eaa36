"""Runs of evaluate for tests of comparisons: rows written through the real ledger, with or without a card."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from genloop import rundir
from genloop.runs.evaluations import Evaluation, read_evaluation
from tests.worlds.report_runs import CARD, complete_run, start_run


def metadata(index: int, tag: str) -> dict[str, Any]:
    """The GenEval metadata of a made-up prompt."""
    return {"tag": tag, "include": [{"class": f"thing{index}", "count": 1}], "prompt": f"a photo of {tag} {index}"}


def verdict_rows(right: Mapping[str, Sequence[Sequence[bool]]], **more: Any) -> list[dict[str, Any]]:
    """{task: a list of right or wrong for each prompt} -> rows as evaluate writes them."""
    prompts = [(tag, found) for tag, prompts in right.items() for found in prompts]
    return [
        {
            "prompt_index": index,
            "sample": sample,
            "prompt": f"a photo of {tag} {index}",
            "tag": tag,
            "image": f"{index:05d}/samples/{sample:04d}.png",
            "correct": correct,
            "reason": "" if correct else f"expected thing{index}>=1, found 0",
            "details": {},
            "metadata": metadata(index, tag),
            **more,
        }
        for index, (tag, found) in enumerate(prompts)
        for sample, correct in enumerate(found)
    ]


def write_evaluation(
    run: Path, rows: Sequence[dict[str, Any]], card: Mapping[str, Any] | None = CARD, *, limit: int | None = None
) -> Path:
    """A run folder of evaluate; `limit`: only so many units of four rows are done."""
    start_run(run, "evaluate", {"images": str(run / "images")})
    complete_run(run, rows, 4, limit=limit)
    if card is not None:
        rundir.write_json(run / "card.json", card)
    return run


def evaluation(run: Path, right: Mapping[str, Sequence[Sequence[bool]]], **more: Any) -> Evaluation:
    """The same, read back."""
    return read_evaluation(write_evaluation(run, verdict_rows(right, **more)))


def write_reference(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """The rows as GenEval's own result file."""
    lines = []
    for row in rows:
        own = {key: row[key] for key in ("tag", "prompt", "correct", "reason")}
        texts = {key: json.dumps(row[key]) for key in ("metadata", "details")}
        lines.append({"filename": f"images/{row['image']}", **own, **texts})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path
