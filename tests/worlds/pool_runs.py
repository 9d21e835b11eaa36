"""Runs of generate for tests of scaling_curve: candidates of the embedded world that are known to be right or wrong."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genloop.records import Prompt, pack_tokens
from genloop.shapes.codebook import PatchCodebook
from genloop.shapes.render import render
from genloop.shapes.scenes import scene_for
from tests.worlds.report_runs import complete_run, start_run

NUM_STEPS = 18
FLOPS = 1e6  # of one candidate
JUDGING = 1e5  # of asking the recorded judge about one


def write_pool(
    run: Path,
    prompts: Sequence[Prompt],
    right: Sequence[Sequence[Sequence[bool]]],
    scores: Sequence[Sequence[Sequence[float | None]]] | None = None,
    *,
    strategy: str = "best_of_n",
    limit: int | None = None,
) -> Path:
    """`right` and `scores` by prompt, sample and candidate; wrong candidates are empty images -> the run folder."""
    start_run(
        run, "generate", {"generator": {"options": {"tokenizer": "shapes/tokenizer"}}, "search": {"judge": "made_up"}}
    )
    rows = []
    for number, prompt in enumerate(prompts):
        place = run / "images" / f"{prompt.index:05d}"
        place.mkdir(parents=True)
        (place / "metadata.jsonl").write_text(json.dumps(prompt.metadata()) + "\n")
        for sample, candidates in enumerate(right[number]):
            judged = scores[number][sample] if scores else [None] * len(candidates)
            rows.append(_row(prompt, sample, candidates, judged, strategy))
    complete_run(run, rows, 2, limit=limit)
    return run


def _row(
    prompt: Prompt, sample: int, right: Sequence[bool], scores: Sequence[float | None], strategy: str
) -> dict[str, Any]:
    codebook = PatchCodebook.enumerate()
    drawn = [scene_for(prompt, np.random.default_rng([prompt.index, sample, i])) for i in range(len(right))]
    images = torch.from_numpy(render(drawn)).permute(0, 3, 1, 2).float() / 255
    tokens = codebook.encode(images).numpy()
    tokens[~np.array(right, dtype=bool)] = codebook.background_code
    is_judged = any(score is not None for score in scores)
    flops = len(right) * (FLOPS + JUDGING * is_judged)
    return {
        "prompt_index": prompt.index,
        "sample": sample,
        "prompt": prompt.text,
        "tag": prompt.tag,
        "image": f"images/{prompt.index:05d}/samples/{sample:04d}.png",
        "grid": list(codebook.grid),
        "strategy": strategy,
        "chosen": 0,
        "tokens": pack_tokens(tokens[0]),
        "revealed_at": pack_tokens(np.zeros_like(tokens[0])),
        "num_steps": NUM_STEPS,
        "cost": {
            "generator_steps": NUM_STEPS * len(right),
            "judge_calls": len(right) * is_judged,
            "flops": flops,
            "flops_without_search": FLOPS,
        },
        "candidates": [
            {"candidate": i, "tokens": pack_tokens(row), "p_yes": {"outcome": score} if is_judged else {}}
            for i, (row, score) in enumerate(zip(tokens, scores))
        ],
    }
