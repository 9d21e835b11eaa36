"""Run folders for the report's tests, written through the real records, ledger and run folder: small drawn images."""

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from genloop import rundir
from genloop.data.images import contact_sheet, encode_png
from genloop.distributed import World
from genloop.ledger import Ledger, plan_units
from genloop.records import TAGS, pack_tokens

COLORS = {"red": (214, 60, 50), "blue": (58, 110, 210), "green": (60, 160, 80), "yellow": (235, 200, 60)}
GRID = (6, 6)
NUM_STEPS = 9
CARD = {
    "schema": 1,
    "detector": {"kind": "shapes", "options": {}, "weights": {}},
    "colors": {"kind": "shapes", "options": {}, "weights": {}},
    "options": {"threshold": 0.3, "counting_threshold": 0.9},
    "code": {"genloop": "0.1.0"},
    "images": {
        "prompts": "ab" * 32,
        "num_prompts": 6,
        "rewritten": False,
        "source": "the images' own metadata",
        "sha256": "cd" * 32,
        "size": [[64, 64]],
        "guidance": 2.0,
        "steps": 18,
        "seeds": [0],
        "strategy": "none",
        "weights": {"model.showo": "ef" * 32},
    },
}


@dataclass(frozen=True)
class Sketch:
    """What a made-up pair of runs looks like."""

    prompts_per_task: int = 4
    samples: int = 1
    num_candidates: int = 1
    seed: int = 0
    accuracy: float = 0.5
    side: int = 24
    tags: Sequence[str] = TAGS
    texts: dict[int, str] = field(default_factory=dict)  # prompts to replace, by index
    unit_size: int = 4
    units: int | None = None  # how many units of the evaluation to finish; None: all
    searched: bool = False  # rows say how every candidate went: judged, cut, corrected
    flops: float = 0.0  # of a decoding step, where rows count operations; searched ones always do
    previews: bool = True  # of a searched run: keep what the judge was shown


def write_runs(root: Path, name: str, sketch: Sketch) -> Path:
    """ROOT/NAME (generate) and ROOT/NAME-verdicts (evaluate) -> the latter."""
    rng = np.random.default_rng(sketch.seed)
    prompts = [(tag, sketch.texts.get(i, f"a photo of {tag} {i}")) for i, tag in enumerate(_tags(sketch))]
    items = [(index, sample) for index in range(len(prompts)) for sample in range(sketch.samples)]
    made, judged = root / name, root / f"{name}-verdicts"
    rows = [_make(made, sketch, rng, index, sample, *prompts[index]) for index, sample in items]
    start_run(made, "generate", {"search": {"n": sketch.num_candidates}, "seed": sketch.seed})
    complete_run(made, rows, sketch.unit_size)
    rundir.append_metrics(made, {"unit": "00000", "images": len(rows), "generator_steps": NUM_STEPS * len(rows)})
    verdicts = [_judge(row, bool(rng.random() < sketch.accuracy)) for row in rows]
    start_run(judged, "evaluate", {"images": str(made / "images"), "detector": "shapes"})
    complete_run(judged, verdicts, sketch.unit_size, limit=sketch.units)
    if sketch.units is None:
        rundir.write_json(judged / "card.json", CARD)
    return judged


def _tags(sketch: Sketch) -> list[str]:
    return [tag for tag in sketch.tags for _ in range(sketch.prompts_per_task)]


def _make(
    run: Path, sketch: Sketch, rng: np.random.Generator, index: int, sample: int, tag: str, text: str
) -> dict[str, Any]:
    """Draw one image -> its row as `generate` writes it."""
    name = f"images/{index:05d}/samples/{sample:04d}.png"
    (run / name).parent.mkdir(parents=True, exist_ok=True)
    png = draw(rng, sketch.side)
    (run / name).write_bytes(png)
    cells = GRID[0] * GRID[1]
    scores = rng.random(sketch.num_candidates).round(3).tolist() if sketch.num_candidates > 1 else [None]
    chosen = scores.index(max(scores)) if sketch.num_candidates > 1 else 0
    tokens = pack_tokens(rng.integers(0, 300, cells))
    row = {
        "prompt_index": index,
        "sample": sample,
        "prompt": text,
        "tag": tag,
        "image": name,
        "sha256": hashlib.sha256(png).hexdigest(),
        "grid": list(GRID),
        "strategy": "best_of_n" if sketch.num_candidates > 1 else "none",
        "chosen": chosen,
        "tokens": tokens,
        "revealed_at": pack_tokens(rng.permutation(np.arange(cells) * NUM_STEPS // cells)),
        "num_steps": NUM_STEPS,
        "cost": {"generator_steps": NUM_STEPS * len(scores), "judge_calls": 0 if scores == [None] else len(scores)},
        "candidates": [
            {"candidate": i, "tokens": tokens, "p_yes": {} if p is None else {"outcome": p}}
            for i, p in enumerate(scores)
        ],
    }
    if sketch.flops:
        row["cost"]["flops"] = sketch.flops * row["cost"]["generator_steps"]
        row["cost"]["flops_without_search"] = sketch.flops * NUM_STEPS
    return row | _search(run, sketch, rng, row) if sketch.searched else row


def _search(run: Path, sketch: Sketch, rng: np.random.Generator, row: dict[str, Any]) -> dict[str, Any]:
    """What a row of PARM++ says: the better half of the candidates goes on after step 6, the best one is corrected."""
    good = sorted(row["candidates"], key=lambda c: -c["p_yes"]["outcome"])[: max(1, sketch.num_candidates // 2)]
    for candidate in row["candidates"]:
        p = candidate["p_yes"]["outcome"]
        clarity, potential = (round(float(v), 3) for v in (rng.random(), 0.5 * p + 0.5 * rng.random()))
        trace = [[3, "clarity", clarity / 2], [6, "clarity", clarity], [6, "potential", potential]]
        is_good = candidate in good
        candidate["trace"] = trace + ([[NUM_STEPS, "outcome", p]] if is_good else [])
        candidate["cut_at"] = None if is_good else 6
        candidate["p_yes"] = {"clarity": clarity, "potential": potential} | ({"outcome": p} if is_good else {})
    best, p_yes = good[0], round((good[0]["p_yes"]["outcome"] + 1) / 2, 3)
    best["reason"] = f"there is no {row['tag']} & <b>nothing</b> red"
    fixed = {"candidate": len(row["candidates"]), "tokens": row["tokens"], "p_yes": {"outcome": p_yes}}
    fixed |= {"trace": [[NUM_STEPS + 4, "outcome", p_yes]], "cut_at": None, "parent": best["candidate"]}
    candidates = [*row["candidates"], fixed]
    steps = sum(c["cut_at"] or NUM_STEPS for c in row["candidates"]) + 5.5
    calls = sum(len({step for step, _, _ in c["trace"]}) for c in candidates)
    cost = {"generator_steps": steps, "judge_calls": calls, "flops": 1e6 * steps + 3e5 * calls}
    facts = {"strategy": "parm_plus_plus", "chosen": fixed["candidate"], "candidates": candidates}
    if sketch.previews:
        facts["previews"] = f"paths/{row['prompt_index']:05d}/{row['sample']:04d}.png"
        (run / facts["previews"]).parent.mkdir(parents=True, exist_ok=True)
        (run / facts["previews"]).write_bytes(_sheet(rng, sketch.side, candidates))
    return facts | {"cost": cost | {"flops_without_search": 1e6 * NUM_STEPS}}


def _sheet(rng: np.random.Generator, side: int, candidates: Sequence[dict[str, Any]]) -> bytes:
    """A row a candidate, a column a step at which any was judged."""
    steps = sorted({step for candidate in candidates for step, _, _ in candidate["trace"]})
    seen = [[any(step == s for s, _, _ in candidate["trace"]) for step in steps] for candidate in candidates]
    pictures = [[_pixels(draw(rng, side)) if shown else None for shown in row] for row in seen]
    return encode_png(contact_sheet(pictures))


def _pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def _judge(row: dict[str, Any], correct: bool) -> dict[str, Any]:
    """The row as `evaluate` writes it."""
    return {
        "prompt_index": row["prompt_index"],
        "sample": row["sample"],
        "prompt": row["prompt"],
        "tag": row["tag"],
        "image": row["image"].removeprefix("images/"),
        "correct": correct,
        "reason": "" if correct else "expected red circle>=1, found 0 red; and 1 blue",
        "details": {"circle": [[4.0, 4.0, 12.0, 12.0, 0.98]]},
        "metadata": {"tag": row["tag"], "include": [{"class": "circle", "count": 1}], "prompt": row["prompt"]},
    }


def draw(rng: np.random.Generator, side: int) -> bytes:
    """A square image with a few coloured shapes as PNG bytes."""
    image = Image.new("RGB", (side, side), (150, 150, 150))
    pencil = ImageDraw.Draw(image)
    for color in list(COLORS.values())[: int(rng.integers(1, 4))]:
        x, y = (int(v) for v in rng.integers(0, side * 2 // 3, 2))
        pencil.ellipse((x, y, x + side // 3, y + side // 3), fill=color)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def start_run(run: Path, job: str, config: dict[str, Any]) -> None:
    """A run folder with its provenance."""
    environment = {
        "genloop": "0.1.0",
        "git": {"commit": "0123abc", "dirty": True},
        "python": "3.11.7",
        "packages": {"torch": "2.13.0", "numpy": "2.4.6"},
        "platform": "Linux",
        "cpu": {"model": "a processor", "cores": 2, "memory_gib": 7.8},
        "gpus": [],
        "command": ["genloop", "run", job],
        "started": "2026-01-01T00:00:00Z",
    }
    fingerprint = rundir.fingerprint_of(job, {"seed": 0}, {"prompts": "ab" * 32})
    rundir.start_run(run, json.dumps(config, indent=1), fingerprint, environment)


def complete_run(run: Path, rows: Sequence[dict[str, Any]], unit_size: int, *, limit: int | None = None) -> None:
    """Put the rows in place, all units or the first `limit`."""
    units = plan_units(len(rows), unit_size)
    with Ledger(run, units, World()) as ledger:
        for number, unit in enumerate(ledger.claims()):
            if number == limit:
                break
            with ledger.working(unit):
                ledger.complete(unit, rows[unit.start : unit.stop])
