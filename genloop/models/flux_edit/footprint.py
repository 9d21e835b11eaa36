"""How much memory editing takes, from headers and the meta device: weights by stage, and what a pass works with."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from genloop.checkpoint import Shape
from genloop.models.common.footprint import rehearsal
from genloop.models.flux_edit.config import EditFolder, component_shapes
from genloop.models.flux_edit.encode import T5_TOKENS, TOKENS_ALONE
from genloop.models.flux_edit.needs import STAGES
from genloop.models.flux_edit.smaller import EXACT
from genloop.reading import read_json_object
from genloop.registry import require

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_KEPT = ("depth", "anyline", "sam2")  # annotators stay, in float32
_LINEARS = {"connector", "t5_embedder"}  # two matrices beside gigabytes


class Room(NamedTuple):
    """What decides how much there has to be."""

    dtype: str
    size: tuple[int, int]  # width, height of an image
    rows: int  # that are drawn side by side
    memory: str
    quantised: str
    offload: bool
    gguf: Path | None = None  # the transformer's weights, which stay as small as in the file


def largest_stage(folder: EditFolder, room: Room, device: str) -> tuple[dict[str, int], int]:
    """-> bytes of weights by component in the stage that takes the most, and the bytes it works with beside them."""
    weights = {name: _weights(folder, name, room) for name in folder.components if name not in _LINEARS}
    kept = {name: weights[name] for name in weights if name in _KEPT}
    encoders = {name: weights[name] for name in weights if name in STAGES["encode"]}
    drawers = {name: weights[name] for name in weights if name in (*STAGES["denoise"], *STAGES["decode"])}
    working = max(_pass_bytes(folder, room, device), _decoding_bytes(folder, room, device))
    if room.memory == "all":
        return encoders | drawers, working
    alone = max((name for name in encoders if name not in kept), key=encoders.__getitem__)
    encoding, drawing = kept | {alone: encoders[alone]}, kept | drawers
    return (encoding, 0) if sum(encoding.values()) > sum(drawing.values()) + working else (drawing, working)


def _weights(folder: EditFolder, name: str, room: Room) -> int:
    """Bytes on the device."""
    if name == "anyline":
        return (folder.folder / "anyline" / "MTEED.pth").stat().st_size
    each = 4 if name in _KEPT else _BYTES[room.dtype]
    shapes = component_shapes(folder.folder, name)
    if name != "transformer":
        return each * sum(map(_count, shapes.values()))
    if room.gguf is not None:
        return room.gguf.stat().st_size
    if room.offload:
        return each * max(map(_count, shapes.values()))
    return sum(_count(shape) * (1 if _is_small(key, shape, room) else each) for key, shape in shapes.items())


def _is_small(key: str, shape: Shape, room: Room) -> bool:
    return room.quantised != "none" and len(shape) == 2 and not set(EXACT) & set(key.split("."))


def _count(shape: Shape) -> int:
    return int(torch.Size(shape).numel())


def _pass_bytes(folder: EditFolder, room: Room, device: str) -> int:
    """What one pass of the transformer needs beside its weights; the ControlNet's is smaller."""
    (width, height), dtype = room.size, getattr(torch, room.dtype)
    tokens = (width // (2 * folder.factor)) * (height // (2 * folder.factor))
    config, rows = folder.transformer, room.rows

    def work(model: Any) -> None:
        def empty(*shape: int) -> torch.Tensor:
            return torch.empty(shape, dtype=dtype, device="meta")

        model(
            hidden_states=empty(rows, tokens, config["in_channels"]),
            encoder_hidden_states=empty(rows, T5_TOKENS + TOKENS_ALONE, config["joint_attention_dim"]),
            pooled_projections=empty(rows, config["pooled_projection_dim"]),
            timestep=empty(rows),
            img_ids=empty(tokens, 3),
            txt_ids=empty(T5_TOKENS + TOKENS_ALONE, 3),
            guidance=empty(rows) if config.get("guidance_embeds") else None,
            return_dict=False,
        )

    return _working("FluxTransformer2DModel", config, dtype, device, work)


def _decoding_bytes(folder: EditFolder, room: Room, device: str) -> int:
    """What decoding one latent needs beside the weights of the VAE."""
    (width, height), dtype = room.size, getattr(torch, room.dtype)
    shape = 1, folder.vae["latent_channels"], height // folder.factor, width // folder.factor
    config = read_json_object(folder.folder / "flux" / "vae" / "config.json")
    return _working(
        "AutoencoderKL", config, dtype, device, lambda vae: vae.decode(torch.empty(shape, dtype=dtype, device="meta"))
    )


def _working(name: str, config: Mapping[str, Any], dtype: torch.dtype, device: str, work: Any) -> int:
    """Peak of `work` on a model without values, beside its weights."""
    kind = getattr(require("diffusers", "diffusion"), name)
    with rehearsal(device) as tracker, torch.inference_mode():
        with tracker.part("weights"), torch.device("meta"):
            model = nn.Module.to(kind.from_config(config).eval(), dtype)  # diffusers' own warns
            tracker.see(model.parameters())
        work(model)
        return max(0, tracker.peak - tracker.parts["weights"])
