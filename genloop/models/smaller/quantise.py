"""Weights of a model in eight bits (torchao) or four (bitsandbytes, NF4), in a folder that transformers loads so.

Quantised are the linear layers of every part but the head; embeddings, norms and convolutions stay as they are.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from genloop.checkpoint import find_weights, load_file
from genloop.models.common.pretrained import errors_in_one_line
from genloop.models.qwen.config import CLASSES
from genloop.models.qwen.load import nf4_config
from genloop.reading import parse_json, read_json_object
from genloop.registry import require

_NAMES = "tensor_names"  # of torchao's notes in the header


def quantised(folder: Path, kind: str, temporary: Path) -> tuple[dict[str, Any], dict[str, Any], Mapping[str, str]]:
    """A folder with full weights -> tensors, config.json and the header's notes of its quantised form.

    `temporary` is a place for files in between; it is gone afterwards.
    """
    family = str(read_json_object(folder / "config.json")["model_type"])
    model_class = getattr(require("transformers"), CLASSES[family])
    require("transformers.utils.logging").disable_progress_bar()
    with errors_in_one_line(folder):
        model = model_class.from_pretrained(
            str(folder),
            dtype="auto",
            device_map={"": "cpu"},
            local_files_only=True,
            use_safetensors=True,
            quantization_config=_settings(kind),
        )
    try:
        model.save_pretrained(temporary)
        tensors: dict[str, Any] = {}
        notes: dict[str, str] = {}
        for file in find_weights(temporary).files:
            tensors |= {name: tensor.clone() for name, tensor in load_file(file).items()}
            with require("safetensors").safe_open(str(file), "pt") as opened:
                notes |= opened.metadata() or {}
        return tensors, read_json_object(temporary / "config.json"), _readable(notes)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _readable(notes: Mapping[str, str]) -> dict[str, str]:
    """Without names that have no dot, such as InstructBLIP's query_tokens: torchao 0.18 writes and cannot read them."""
    if _NAMES not in notes:
        return dict(notes)
    names = [name for name in parse_json(notes[_NAMES]) if "." in name]
    return {**notes, _NAMES: json.dumps(names)}


def _settings(kind: str) -> Any:
    if kind == "nf4":
        return nf4_config(torch.float32)
    config = require("torchao.quantization", "qlora").Int8WeightOnlyConfig(version=2)
    return require("transformers").TorchAoConfig(config, modules_to_not_convert=["lm_head"])
