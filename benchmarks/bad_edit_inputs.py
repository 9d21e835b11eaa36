"""Bad work lists and checkpoints of `edit`, for benchmarks/bad_inputs.py: one thing wrong in one request."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

from benchmarks.bad_input_kinds import Case, job
from tests.runs import ROOT

DATA, TINY = ROOT / "configs" / "data" / "flux_edit", ROOT / "ckpts" / "tiny" / "flux_edit"
NEEDED = ("flux/vae", "flux/transformer", "flux/tokenizer", "qwen2-vl", "qwen2-vl/connector.pt", "controlnet", "sam2")


def edit_requests(place: Path, chance: random.Random) -> Case:
    """A work list of which one line is wrong, or whose checkpoint lacks a component."""
    lines = (DATA / "requests.jsonl").read_text().splitlines()
    which = chance.randrange(len(lines))
    if chance.random() < 0.15:
        return _without_a_component(place, chance)
    request: dict[str, Any] = json.loads(lines[which])
    change, names = chance.choice(_changes(place, chance, request))
    lines[which] = change if isinstance(change, str) else json.dumps(request | change)
    path = place / "work.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return job("edit", f"requests={path}", names=[*names, f"work.jsonl:{which + 1}"])


def _changes(
    place: Path, chance: random.Random, request: dict[str, Any]
) -> list[tuple[dict[str, Any] | str, list[str]]]:
    """Keys to change, or another line; and what has to be named."""
    (place / "text.png").write_text("no picture")
    torn = (DATA / "scene.png").read_bytes()
    (place / "torn.png").write_bytes(torn[: chance.randrange(16)])
    others = [mode for mode in ("img2img", "inpaint", "controlnet") if mode != request["mode"]]
    key = chance.choice(["input_image", "reference_image", "mask_image", "line_image"])
    picture = chance.choice(["text.png", "torn.png", "gone.png", "."])
    return [
        ({"mode": chance.choice(["", "Variation", "outpaint", 3, None])}, ["mode"]),
        ({"mode": chance.choice(others)} if "mask_image" in request else {"mode": "inpaint", "mask_points": []}, ["m"]),
        ({key: str(place / picture)}, [key, picture]),
        ({"steps": chance.choice([0, -3, "many", 1.5, 10**9])}, ["steps"]),
        ({"image_count": chance.choice([0, -1, "x", 10**9])}, ["image_count"]),
        ({"center_x": chance.choice([-0.1, 1.1, "left"])}, ["center_x"]),
        ({"center_x": 0.5, "center_y": 0.5, "radius": 0}, ["radius"]),
        ({"aspect_ratio": chance.choice(["5:4", "", "16x9", 1.5])}, ["aspect_ratio"]),
        ({"denoise_strength": chance.choice([0, 1.5, -1, "all"])}, ["denoise_strength"]),
        ({"max_pixels": chance.choice([0, -5, 100])}, ["max_pixels", "input_image"]),
        ({"mask_points": [[1, 2, 7]]}, ["mask_points"]),
        ({chance.choice(["promt", "seed", "control"]): 1}, ["promt", "seed", "control"]),
        (chance.choice(["[]", "3", "{", '{"mode": "img2img"', "\x00", '{"steps": NaN}']), ["work.jsonl"]),
    ]


def _without_a_component(place: Path, chance: random.Random) -> Case:
    folder, name = place / "checkpoint", chance.choice(NEEDED)
    shutil.copytree(TINY, folder)
    gone = folder / name
    shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    return job("edit", f"checkpoint={folder}", names=[name])
