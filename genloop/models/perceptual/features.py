"""Perceptual distances with gradients and without downloads: a VAE's own encoder, random convolutions, MS-SSIM.

Random networks measure similarity too, worse than trained ones (Zhang et al. 2018, section 4). B = pairs, C, h, w =
channels and sides of features, H, W = pixels; images are (B, 3, H, W) in [-1, 1].
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, conv2d, leaky_relu

from genloop.models.common.footprint import kind_of
from genloop.models.diffusion.fresh import keyed

WINDOW = 11  # pixels of SSIM's Gaussian window
_SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # weights of MS-SSIM
_SIGMA, _C1, _C2 = 1.5, 0.01**2, 0.03**2
_LEAST = 1e-2  # of a factor of MS-SSIM: the gradient of a power of less explodes
_LUMA = (0.299, 0.587, 0.114)  # BT.601
_WIDTHS = (16, 32, 64)  # of the random convolutions


def feature_distance(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> Tensor:
    """Features (B, C, h, w) of each layer -> (B,): squared differences of unit features, as LPIPS with equal weights.

    Means over places and layers, sums over channels: from 0 to 4.
    """
    parts = [(_unit(a) - _unit(b)).square().sum(1).mean((1, 2)) for a, b in zip(ours, theirs, strict=True)]
    return torch.stack(parts).mean(0)


def encoder_features(vae: Any, images: Tensor) -> list[Tensor]:
    """Behind each level of an AutoencoderKL's encoder; gradients flow, weights stay."""
    values, found = vae.encoder.conv_in(images.to(vae.dtype)), []
    for block in vae.encoder.down_blocks:
        values = block(values)
        found.append(values)
    return found


class ConvPyramid(nn.Module):
    """Random orthogonal 3 x 3 convolutions (Saxe et al. 2014), each level at half the size; keyed by a seed."""

    def __init__(self, seed: int) -> None:
        super().__init__()

        def weights() -> list[Tensor]:
            pairs = zip((3, *_WIDTHS[:-1]), _WIDTHS)
            return [nn.init.orthogonal_(torch.empty(width, channels, 3, 3), gain=2**0.5) for channels, width in pairs]

        for number, weight in enumerate(keyed(seed, weights)):
            self.register_buffer(f"weight{number}", weight)

    def forward(self, images: Tensor) -> list[Tensor]:
        """-> features of each level"""
        values, found = images.float(), []
        for weight in self.buffers():
            values = leaky_relu(conv2d(values, weight, padding=1), 0.2)
            found.append(values)
            values = avg_pool2d(values, 2, ceil_mode=True)
        return found


def ms_ssim_distance(ours: Tensor, theirs: Tensor) -> Tensor:
    """1 - MS-SSIM of luma (Wang et al. 2003), (B,), over as many scales as hold a whole window; their weights sum to 1.

    Factors below 0.01, which unlike images have, count as 0.01.
    """
    with torch.autocast(kind_of(ours.device), enabled=False):  # differences of squares want float32
        return _ms_ssim_distance(*(_luma(images) for images in (ours, theirs)))


def _ms_ssim_distance(x: Tensor, y: Tensor) -> Tensor:
    num_scales = scales_of(min(x.shape[2:]))
    weights = [weight / sum(_SCALES[:num_scales]) for weight in _SCALES[:num_scales]]
    found = x.new_ones(len(x))
    for place, weight in enumerate(weights):
        whole, contrast = _ssim_parts(x, y)
        found = found * (whole if place == num_scales - 1 else contrast).clamp(min=_LEAST).pow(weight)
        if place < num_scales - 1:
            x, y = avg_pool2d(x, 2), avg_pool2d(y, 2)
    return 1 - found


def scales_of(side: int) -> int:
    """The scales whose images, of that many pixels on their shorter side at first, hold a window; 0: none."""
    return sum(side // 2**scale >= WINDOW for scale in range(len(_SCALES)))


def _unit(features: Tensor) -> Tensor:
    values = features.float()
    return values / (values.square().sum(1, keepdim=True) + 1e-10).sqrt()


def _luma(images: Tensor) -> Tensor:
    """-> (B, 1, H, W) in [0, 1]"""
    weights = images.new_tensor(_LUMA, dtype=torch.float32)
    return (images.float() / 2 + 0.5).mul(weights[:, None, None]).sum(1, keepdim=True)


def _ssim_parts(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """(B, 1, H, W) twice -> means of SSIM and of its contrast and structure, (B,) each"""
    places = torch.arange(WINDOW, device=x.device, dtype=torch.float32) - WINDOW // 2
    line = torch.exp(-0.5 * (places / _SIGMA) ** 2)
    line = line / line.sum()
    window = torch.outer(line, line)[None, None]

    def smooth(values: Tensor) -> Tensor:
        return conv2d(values, window)

    mean_x, mean_y = smooth(x), smooth(y)
    squares = smooth(x * x + y * y) - mean_x**2 - mean_y**2
    contrast = (2 * (smooth(x * y) - mean_x * mean_y) + _C2) / (squares + _C2)
    whole = contrast * (2 * mean_x * mean_y + _C1) / (mean_x**2 + mean_y**2 + _C1)
    return whole.mean((1, 2, 3)), contrast.mean((1, 2, 3))
