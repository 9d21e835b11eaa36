"""diffusers' UNet2DConditionModel whose residual blocks have depthwise convolutions (Howard et al. 2017).

A block is GroupNorm, SiLU, depthwise 3 x 3, pointwise; then GroupNorm, FiLM by the time (Perez et al. 2018), SiLU,
depthwise 3 x 3, pointwise, the last one zero at first, so that a fresh block is its skip connection. Convolutions that
halve and double a latent are depthwise and pointwise too. All else is diffusers': levels, attention to the text, its
folders, LoRA. B = rows, C, D = channels, h, w = sides of a latent, T = width of the time's embedding.
"""

import functools
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import silu

from genloop.registry import require

ModelMixin = require("diffusers", "diffusion").ModelMixin  # by this name diffusers knows how a folder is loaded
Stock = require("diffusers", "diffusion").UNet2DConditionModel


class DepthwiseBlock(nn.Module):
    """x (B, C, h, w), time (B, T) -> (B, D, h, w); in the place of a ResnetBlock2D."""

    def __init__(self, channels_in: int, channels_out: int, time_width: int, num_groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(num_groups, channels_in)
        self.conv1 = separable(channels_in, channels_out)
        self.film = nn.Linear(time_width, 2 * channels_out)
        self.norm2 = nn.GroupNorm(num_groups, channels_out)
        self.conv2 = separable(channels_out, channels_out)
        is_same = channels_in == channels_out
        self.shortcut: nn.Module = nn.Identity() if is_same else nn.Conv2d(channels_in, channels_out, 1)
        for parameter in self.conv2[1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, temb: Tensor, *_: Any, **__: Any) -> Tensor:
        """`temb` is diffusers' name for the embedding of the time."""
        scale, shift = self.film(silu(temb))[:, :, None, None].chunk(2, dim=1)
        inner = self.norm2(self.conv1(silu(self.norm1(x))))
        return self.shortcut(x) + self.conv2(silu(inner * (1 + scale) + shift))


class DepthwiseUNet(Stock):  # type: ignore[misc, valid-type]
    """Each ResnetBlock2D and each convolution between levels is replaced; a config is that of the stock UNet."""

    @functools.wraps(Stock.__init__)  # type: ignore[misc]  # its parameters are the keys of config.json
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        time_width, num_groups = self.time_embedding.linear_2.out_features, self.config.norm_num_groups
        for layers in [module for module in self.modules() if isinstance(module, nn.ModuleList)]:
            for place, layer in enumerate(layers):
                layers[place] = _separated(layer, time_width, num_groups)


def _separated(layer: Any, time_width: int, num_groups: int) -> Any:
    """What takes the place of a layer of the stock UNet."""
    kind = type(layer).__name__
    if kind == "ResnetBlock2D":
        return DepthwiseBlock(layer.in_channels, layer.out_channels, time_width, num_groups)
    if kind in ("Downsample2D", "Upsample2D"):
        old = layer.conv
        layer.conv = separable(old.in_channels, old.out_channels, stride=old.stride[0])
    return layer


def separable(channels_in: int, channels_out: int, *, stride: int = 1) -> nn.Sequential:
    """A depthwise 3 x 3 and a pointwise convolution: 9 C + C D weights instead of 9 C D."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_in, 3, stride=stride, padding=1, groups=channels_in),
        nn.Conv2d(channels_in, channels_out, 1),
    )
