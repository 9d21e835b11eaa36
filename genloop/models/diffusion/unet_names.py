"""Names of a UNet's layers in the code that Stable Diffusion was published with (input_blocks, middle_block,
output_blocks), by which kohya's files call the layers of SDXL. No torch.
"""

import re
from collections.abc import Mapping
from typing import Any

_OUTSIDE = {
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}
_INSIDE = {  # of a residual block
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_BLOCK = re.compile(r"(?:(down|up)_blocks\.(\d+)|mid_block)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)")


def original_name(layer: str, unet: Mapping[str, Any]) -> str:
    """diffusers' name of a layer -> the original one; unet: config.json. Other names come back as they are."""
    if layer in _OUTSIDE:
        return _OUTSIDE[layer]
    match = _BLOCK.fullmatch(layer)
    if match is None:
        return layer
    side, block, kind, number, rest = match.groups()
    inside = _INSIDE.get(rest, rest)
    if side is None:
        return f"middle_block.{2 * int(number) if kind == 'resnets' else 1}.{inside}"
    per_block = unet.get("layers_per_block", 2)
    if not isinstance(per_block, int):
        return layer
    stride = per_block + 1
    if side == "down":
        if kind == "downsamplers":
            return f"input_blocks.{stride * (int(block) + 1)}.0.op"
        return f"input_blocks.{1 + stride * int(block) + int(number)}.{int(kind == 'attentions')}.{inside}"
    first = stride * int(block)
    if kind == "upsamplers":
        types = unet.get("up_block_types", ())
        place = 2 if int(block) < len(types) and "Attn" in types[int(block)] else 1
        return f"output_blocks.{first + per_block}.{place}.{rest}"
    return f"output_blocks.{first + int(number)}.{int(kind == 'attentions')}.{inside}"
