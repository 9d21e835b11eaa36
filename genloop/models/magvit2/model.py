"""MAGVIT-v2 with lookup-free quantisation (Yu et al. 2024), in the sizes and key names of showlab/magvitv2.

B = images, H, W = pixels, h, w = token rows and columns, z = bits of a code, K = 2^z codes. Pixels are in [0, 1]
outside and in [-1, 1] inside. A code's bit c is 1 where channel c of the latent is above 0; channel 0 is the highest.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genloop.models.common.footprint import kind_of
from genloop.models.common.memory import Budget
from genloop.models.magvit2.config import MagvitConfig, decode_flops

_ON_A_GPU = 16  # images in a pass


class ResBlock(nn.Module):
    """Two normalised convolutions around a shortcut."""

    def __init__(self, inner: int, outer: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, inner, eps=1e-6)
        self.conv1 = nn.Conv2d(inner, outer, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, outer, eps=1e-6)
        self.conv2 = nn.Conv2d(outer, outer, 3, padding=1)
        if inner != outer:
            self.nin_shortcut = nn.Conv2d(inner, outer, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inner, H, W) -> (B, outer, H, W)"""
        y = self.conv1(F.silu(self.norm1(x)))
        y = self.conv2(F.silu(self.norm2(y)))
        return y + (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x)


class Attention(nn.Module):
    """One head over all pixels."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, width, eps=1e-6)
        self.q = nn.Conv2d(width, width, 1)
        self.k = nn.Conv2d(width, width, 1)
        self.v = nn.Conv2d(width, width, 1)
        self.proj_out = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)"""
        y = self.norm(x)
        q, k, v = (layer(y).flatten(2).transpose(1, 2) for layer in (self.q, self.k, self.v))  # (B, HW, C)
        y = F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]
        return x + self.proj_out(y.transpose(1, 2).unflatten(2, x.shape[2:]))


class Middle(nn.Module):
    """Block, attention, block at the lowest resolution."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.block_1 = ResBlock(width, width, groups)
        self.attn_1 = Attention(width, groups)
        self.block_2 = ResBlock(width, width, groups)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)"""
        return self.block_2(self.attn_1(self.block_1(x)))


class Downsample(nn.Module):
    """Half the resolution; pads right and below only."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H/2, W/2)"""
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Twice the resolution: nearest neighbour, then a convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, 2H, 2W)"""
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Level(nn.Module):
    """The blocks of one resolution and the step to the next, if there is one."""

    def __init__(self, widths: Sequence[int], groups: int, **step: nn.Module) -> None:
        super().__init__()
        self.block = nn.ModuleList(ResBlock(inner, outer, groups) for inner, outer in pairwise(widths))
        for name, module in step.items():
            self.add_module(name, module)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H', W')"""
        for child in (*self.block, *(module for name, module in self.named_children() if name != "block")):
            x = child(x)
        return x


class Encoder(nn.Module):
    """Pixels -> latent."""

    def __init__(self, config: MagvitConfig) -> None:
        super().__init__()
        groups, inner = config.num_groups, config.width
        self.conv_in = nn.Conv2d(3, inner, 3, padding=1)
        self.down = nn.ModuleList()
        for level, (mult, blocks) in enumerate(zip(config.encoder_mult, config.encoder_blocks)):
            outer = config.width * mult
            is_last = level == len(config.encoder_mult) - 1
            step = {} if is_last else {"downsample": Downsample(outer)}
            self.down.append(Level([inner] + [outer] * blocks, groups, **step))
            inner = outer
        self.mid = Middle(inner, groups)
        self.norm_out = nn.GroupNorm(groups, inner, eps=1e-6)
        self.conv_out = nn.Conv2d(inner, config.num_bits, 3, padding=1)
        self.quant_conv = nn.Conv2d(config.num_bits, config.num_bits, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> (B, z, h, w)"""
        x = self.conv_in(x)
        for level in self.down:
            x = level(x)
        return self.quant_conv(self.conv_out(F.silu(self.norm_out(self.mid(x)))))


class Decoder(nn.Module):
    """Bits -> pixels. `up` is stored from the highest resolution on, and runs from its end."""

    def __init__(self, config: MagvitConfig) -> None:
        super().__init__()
        groups, inner = config.num_groups, config.width * config.decoder_mult[-1]
        self.post_quant_conv = nn.Conv2d(config.num_bits, config.num_bits, 1)
        self.conv_in = nn.Conv2d(config.num_bits, inner, 3, padding=1)
        self.mid = Middle(inner, groups)
        levels: list[nn.Module] = []
        for level in reversed(range(len(config.decoder_mult))):
            outer = config.width * config.decoder_mult[level]
            step = {"upsample": Upsample(outer)} if level else {}
            levels.insert(0, Level([inner] + [outer] * config.decoder_blocks[level], groups, **step))
            inner = outer
        self.up = nn.ModuleList(levels)
        self.norm_out = nn.GroupNorm(groups, inner, eps=1e-6)
        self.conv_out = nn.Conv2d(inner, 3, 3, padding=1)

    def forward(self, bits: Tensor) -> Tensor:
        """(B, z, h, w) of -1 and 1 -> (B, 3, H, W), about [-1, 1], not clamped"""
        x = self.mid(self.conv_in(self.post_quant_conv(bits)))
        for level in reversed(self.up):
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class Codebook(nn.Module):
    """Lookup-free quantisation: the signs of a latent are its code."""

    embedding: Tensor
    power_vals: Tensor

    def __init__(self, num_bits: int) -> None:
        super().__init__()
        powers = 2 ** torch.arange(num_bits - 1, -1, -1)
        codes = torch.arange(2**num_bits)
        self.register_buffer("embedding", ((codes[:, None] & powers) != 0).float() * 2 - 1)
        self.register_buffer("power_vals", powers)

    def codes(self, latent: Tensor) -> Tensor:
        """(B, z, h, w) -> (B, h*w) int64, row-major"""
        bits = (latent > 0).flatten(2).transpose(1, 2).to(torch.int64)
        return (bits * self.power_vals).sum(-1)

    def bits(self, codes: Tensor, shape: tuple[int, int]) -> Tensor:
        """(B, h*w) -> (B, z, h, w) of -1 and 1"""
        return self.embedding[codes].transpose(1, 2).contiguous().unflatten(2, shape)


class MagvitV2(nn.Module):
    """The tokenizer; implements `genloop.protocols.ImageTokenizer`.

    On a CPU images go through the network one at a time and in one memory layout, so that a result never depends on its
    neighbours in a batch. On a GPU, where last bits may depend on them, as many share a pass as memory has room for.
    """

    def __init__(self, config: MagvitConfig) -> None:
        super().__init__()
        self.config = config
        self.num_codes = config.num_codes
        self.grid = config.grid
        self.flops_per_decode = decode_flops(config)
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quantize = Codebook(config.num_bits)
        self.budget = Budget(_ON_A_GPU, "images in a pass of MAGVIT-v2")

    @property
    def images_per_pass(self) -> int:
        """How many images share a pass where the model is."""
        return self.budget.limit if kind_of(self.decoder.conv_in.weight.device) == "cuda" else 1

    @torch.inference_mode()
    def encode(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, h*w) int64; H and W are multiples of the token size."""
        if images.shape[2] % self.config.factor or images.shape[3] % self.config.factor:
            raise ValueError(
                f"images of {images.shape[2]}x{images.shape[3]} pixels do not divide into tokens of "
                f"{self.config.factor}x{self.config.factor}; resize or crop them"
            )
        weight = self.encoder.conv_in.weight
        pixels = images.to(device=weight.device, dtype=weight.dtype).contiguous() * 2 - 1
        return self._in_passes(pixels, lambda part: self.quantize.codes(self.encoder(part)))

    @torch.inference_mode()
    def decode(self, codes: Tensor, shape: tuple[int, int] | None = None) -> Tensor:
        """(B, h*w) int64 of a grid of `shape` -> (B, 3, H, W) float32 in [0, 1]."""
        return ((self.decode_pixels(codes, shape) + 1) / 2).clamp(0, 1)

    @torch.inference_mode()
    def decode_pixels(self, codes: Tensor, shape: tuple[int, int] | None = None) -> Tensor:
        """(B, h*w) int64 -> (B, 3, H, W) float32, about [-1, 1], not clamped."""
        shape = shape or self.grid
        if codes.shape[1] != shape[0] * shape[1]:
            raise ValueError(f"{codes.shape[1]} codes do not fill a grid of {shape[0]}x{shape[1]}")
        weight = self.decoder.conv_in.weight
        bits = self.quantize.bits(codes.to(weight.device), shape).to(weight.dtype)
        return self._in_passes(bits, lambda part: self.decoder(part).float())

    def _in_passes(self, rows: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
        """`compute` of (B, ...) in parts."""
        if self.images_per_pass == 1:
            return torch.cat([compute(part) for part in rows.split(1)])
        return torch.stack(self.budget.run(cast("Any", rows), 1, cast("Any", compute)))
