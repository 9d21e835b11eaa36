"""Sizes of a UNet with fresh weights, as the config.json that diffusers reads. No torch."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from genloop.bounds import CountOrNone, Repeats, Width
from genloop.config import Settings

DEPTHWISE, STOCK = "DepthwiseUNet", "UNet2DConditionModel"
UNETS = {  # names in config.json and model_index.json -> where the class is
    DEPTHWISE: "genloop.models.unet.model:DepthwiseUNet",
    STOCK: "diffusers:UNet2DConditionModel",
}


class UnetSizes(Settings):
    """Which UNet is trained. The frame is that of diffusers: levels that halve the latent, attention to the text."""

    kind: Literal["depthwise", "stock", "start"] = Field(
        "depthwise",
        description="residual blocks with depthwise convolutions, diffusers' own, or the base's UNet goes on",
    )
    channels: tuple[Width, ...] = Field((64, 128), min_length=1, description="of each level")
    layers: Repeats = Field(2, description="residual blocks of a level on its way down; one more on its way up")
    attention_from: CountOrNone = Field(0, description="the first level that attends to itself and to the text, from 0")
    heads: Width = Field(4, description="of attention")
    num_groups: Width = Field(8, description="of group normalisation")

    def check(self) -> None:
        """ValueError, which names the key, for sizes that do not fit each other."""
        levels = len(self.channels)
        if self.attention_from >= levels:
            raise ValueError(f"model.attention_from: {self.attention_from} is none of the levels 0 to {levels - 1}")
        for name, divisor in (("num_groups", self.num_groups), ("heads", self.heads)):
            if any(width % divisor for width in self.channels):
                raise ValueError(f"model.channels: {list(self.channels)} must be multiples of model.{name}={divisor}")

    def unet_config(self, base: Mapping[str, Any]) -> dict[str, Any]:
        """config.json of a UNet for the latents and texts of `base`, the config.json of another one."""
        attends = [level >= self.attention_from for level in range(len(self.channels))]
        return {
            "_class_name": DEPTHWISE if self.kind == "depthwise" else STOCK,
            "sample_size": base["sample_size"],
            "in_channels": base["in_channels"],
            "out_channels": base["in_channels"],
            "block_out_channels": list(self.channels),
            "layers_per_block": self.layers,
            "down_block_types": ["CrossAttnDownBlock2D" if found else "DownBlock2D" for found in attends],
            "up_block_types": ["CrossAttnUpBlock2D" if found else "UpBlock2D" for found in reversed(attends)],
            "norm_num_groups": self.num_groups,
            "attention_head_dim": self.heads,  # diffusers' name for their number
            **{key: base[key] for key in _OF_TEXTS if base.get(key) is not None},
        }


_OF_TEXTS = (
    "cross_attention_dim",
    "addition_embed_type",
    "addition_time_embed_dim",
    "projection_class_embeddings_input_dim",
)
