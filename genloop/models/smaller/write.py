"""A smaller form of a checkpoint folder, written whole: what is left out first, then fewer bits for what stays."""

import shutil
from pathlib import Path
from typing import Any

from genloop.checkpoint import MANIFEST_FILE, load_tensors, save_folder
from genloop.hashing import sha256_tree
from genloop.models.smaller.images import IMAGE_FILES, reduced_images
from genloop.models.smaller.quantise import quantised
from genloop.models.smaller.reduce import reduced_config, reduced_tensors
from genloop.models.smaller.settings import Reduction, ReductionPlan
from genloop.reading import read_bytes, read_json_object

NOTES = "compression.json"
_LEFT_OUT = ("config.json", "calibration.json", NOTES, MANIFEST_FILE)  # a smaller judge is calibrated anew
_COPIED = (".json", ".jinja", ".txt", ".yaml", ".model", ".md")
_WEIGHTS = "model.safetensors"


def write_smaller(folder: Path, plan: ReductionPlan, out: Path) -> None:
    """`folder` as `plan` has it, in `out`, an earlier one of which is replaced; nothing is left of what is in between.

    ValueError in one line where transformers cannot load what it has to quantise.
    """
    files = _files(folder, plan)
    start, between = folder, out.with_name(f".{out.name}.full")
    if plan.leaves_out:
        config = read_json_object(folder / "config.json")
        tensors = reduced_tensors(load_tensors(folder), plan, config)
        start = between if plan.reduction.quantise != "none" else out
        save_folder(start, tensors, {**files, "config.json": reduced_config(config, plan)}, weights=_WEIGHTS)
    if plan.reduction.quantise == "none":
        return
    try:
        packed, config, notes = quantised(start, plan.reduction.quantise, out.with_name(f".{out.name}.packed"))
        save_folder(out, packed, {**files, "config.json": config}, weights=_WEIGHTS, metadata=notes)
    finally:
        shutil.rmtree(between, ignore_errors=True)


def _files(folder: Path, plan: ReductionPlan) -> dict[str, Any]:
    """What belongs to the model beside config.json and weights: tokenizer, template, image processor, questions."""
    asked = plan.reduction
    size: dict[str, Any] = {
        "side": asked.image_size,
        "tokens": asked.query_tokens,
        "fixed_tile": plan.family.fixed_tile,
    }
    files: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):  # InstructBLIP has a folder for a tokenizer of its own
        name = path.relative_to(folder).as_posix()
        if path.suffix not in _COPIED or name in _LEFT_OUT or name.endswith(".index.json") or name.startswith("."):
            continue
        files[name] = reduced_images(read_json_object(path), **size) if name in IMAGE_FILES else read_bytes(path)
    files[NOTES] = {
        "original": {"name": folder.name, "sha256": sha256_tree(folder)},
        "reduction": plan.reduction.model_dump(mode="json", include=set(Reduction.model_fields)),
        "text_layers": list(plan.text),
        "vision_layers": list(plan.vision),
    }
    return files
