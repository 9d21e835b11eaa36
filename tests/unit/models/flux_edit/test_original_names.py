"""GGUF files of Flux by the names of its own code: every tensor ends up where diffusers' network has it.

diffusers' reader has Flux's width of 3,072 built in, so this is a Flux of that width with one block of each kind. Every
tensor is one number all over, of its own, which tells where it went.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType
from torch import Tensor

from genloop.models.flux_edit import load
from genloop.registry import require
from tests.unit.models.flux_edit.test_drawing import FOLDER

SIZES = {"num_attention_heads": 24, "attention_head_dim": 128, "axes_dims_rope": [16, 56, 56]}
BLOCK, SINGLE, TEXTS = "transformer_blocks.0.", "single_transformer_blocks.0.", "time_text_embed."
JOINED = {  # a matrix with its bias -> those that it is made of, in order
    "double_blocks.0.img_attn.qkv": [f"{BLOCK}attn.to_{part}" for part in "qkv"],
    "double_blocks.0.txt_attn.qkv": [f"{BLOCK}attn.add_{part}_proj" for part in "qkv"],
    "single_blocks.0.linear1": [*(f"{SINGLE}attn.to_{part}" for part in "qkv"), f"{SINGLE}proj_mlp"],
    "double_blocks.0.img_attn.proj": [f"{BLOCK}attn.to_out.0"],
    "double_blocks.0.txt_attn.proj": [f"{BLOCK}attn.to_add_out"],
    "double_blocks.0.img_mod.lin": [f"{BLOCK}norm1.linear"],
    "double_blocks.0.txt_mod.lin": [f"{BLOCK}norm1_context.linear"],
    "double_blocks.0.img_mlp.0": [f"{BLOCK}ff.net.0.proj"],
    "double_blocks.0.img_mlp.2": [f"{BLOCK}ff.net.2"],
    "double_blocks.0.txt_mlp.0": [f"{BLOCK}ff_context.net.0.proj"],
    "double_blocks.0.txt_mlp.2": [f"{BLOCK}ff_context.net.2"],
    "single_blocks.0.linear2": [f"{SINGLE}proj_out"],
    "single_blocks.0.modulation.lin": [f"{SINGLE}norm.linear"],
    "time_in.in_layer": [f"{TEXTS}timestep_embedder.linear_1"],
    "time_in.out_layer": [f"{TEXTS}timestep_embedder.linear_2"],
    "guidance_in.in_layer": [f"{TEXTS}guidance_embedder.linear_1"],
    "guidance_in.out_layer": [f"{TEXTS}guidance_embedder.linear_2"],
    "vector_in.in_layer": [f"{TEXTS}text_embedder.linear_1"],
    "vector_in.out_layer": [f"{TEXTS}text_embedder.linear_2"],
    "txt_in": ["context_embedder"],
    "img_in": ["x_embedder"],
    "final_layer.linear": ["proj_out"],
}
NORMS = {
    "double_blocks.0.img_attn.norm.query_norm": f"{BLOCK}attn.norm_q",
    "double_blocks.0.img_attn.norm.key_norm": f"{BLOCK}attn.norm_k",
    "double_blocks.0.txt_attn.norm.query_norm": f"{BLOCK}attn.norm_added_q",
    "double_blocks.0.txt_attn.norm.key_norm": f"{BLOCK}attn.norm_added_k",
    "single_blocks.0.norm.query_norm": f"{SINGLE}attn.norm_q",
    "single_blocks.0.norm.key_norm": f"{SINGLE}attn.norm_k",
}
LAST, SCALE, SHIFT = "norm_out.linear", "scale", "shift"  # the original code has the shift first


def rows_of(number: int, shape: tuple[int, ...], *, packed: bool) -> np.ndarray:
    """A tensor of one number; packed in blocks of 32 four-bit weights, each 9 - 8 times the number."""
    if not packed:
        return np.full(shape, number, dtype=np.float32)
    block = np.frombuffer(np.float16(number).tobytes() + bytes([0x99] * 16), dtype=np.uint8)
    return np.tile(block, (shape[0], shape[1] // 32))


def tensors(numbers: dict[str, int], shapes: dict[str, tuple[int, ...]]) -> Iterator[tuple[str, np.ndarray]]:
    """What stands in the file, one at a time."""

    def made(key: str, number: int, rows: int | None = None) -> np.ndarray:
        shape = (rows or shapes[key][0], *shapes[key][1:])
        return rows_of(number, shape, packed=len(shape) == 2 and shape[1] % 32 == 0)

    for kind in ("weight", "bias"):
        for name, parts in JOINED.items():
            yield f"{name}.{kind}", np.concatenate([made(f"{p}.{kind}", numbers[f"{p}.{kind}"]) for p in parts])
        key = f"{LAST}.{kind}"
        halves = [made(key, numbers[f"{key} {half}"], shapes[key][0] // 2) for half in (SHIFT, SCALE)]
        yield f"final_layer.adaLN_modulation.1.{kind}", np.concatenate(halves)
    for name, part in NORMS.items():
        yield f"{name}.scale", made(f"{part}.weight", numbers[f"{part}.weight"])


def number_of(row: Tensor) -> float:
    """Of a packed row, or of one that is not."""
    return float(row[:2].numpy().view(np.float16)[0]) if row.dtype == torch.uint8 else float(row.flatten()[0])


def test_every_tensor_of_a_file_by_the_original_names_stands_in_its_place(tmp_path: Path) -> None:
    shutil.copytree(FOLDER / "flux/transformer", folder := tmp_path / "flux/transformer")
    config: dict[str, Any] = json.loads((folder / "config.json").read_text()) | SIZES
    (folder / "config.json").write_text(json.dumps(config))
    with torch.device("meta"):
        empty = require("diffusers").FluxTransformer2DModel.from_config(config)
    shapes = {key: tuple(value.shape) for key, value in empty.state_dict().items()}
    keys = [key for key in shapes if not key.startswith(LAST)]
    keys += [f"{LAST}.{kind} {half}" for kind in ("weight", "bias") for half in (SCALE, SHIFT)]
    numbers = {key: number for number, key in enumerate(keys, 1)}
    writer = gguf.GGUFWriter(str(file := tmp_path / "flux.gguf"), "flux")
    for name, value in tensors(numbers, shapes):
        writer.add_tensor(name, value, raw_dtype=GGMLQuantizationType.Q4_0 if value.dtype == np.uint8 else None)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    model = load.load_transformer(tmp_path, dtype=torch.float32, device="cpu", text=None, other=file)
    found = {key.replace("context_embedder.image.", "context_embedder."): v for key, v in model.state_dict().items()}
    assert found.keys() == shapes.keys()
    for key, value in found.items():
        ends = (SCALE, SHIFT) if key.startswith(LAST) else ("", "")
        assert [number_of(value[place]) for place in (0, -1)] == [numbers[f"{key} {e}".strip()] for e in ends], key
        assert len(value) == shapes[key][0] and (value.dtype == torch.uint8) == (
            value.ndim == 2 and key != "x_embedder.weight"
        )
