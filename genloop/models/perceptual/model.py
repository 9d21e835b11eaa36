"""LPIPS 0.1 and DISTS of image pairs, in float32; weights are those that were published.

B pairs of H x W pixels. A forward pass holds one pair, so that no value depends on the pairs beside it.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import conv2d, max_pool2d, relu

from genloop.models.perceptual.config import DISTS_CHANNELS, VGG16, Network, lpips_shapes

_LPIPS_MEAN, _LPIPS_STD = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of images in [-1, 1]
_DISTS_MEAN, _DISTS_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of images in [0, 1]
_C = 1e-6
_ZERO = 1e-20  # rounded away beside any feature; where all are 0 the root has a gradient
Pool = Callable[[Tensor, int], Tensor]
Distance = Callable[[Tensor], Tensor]  # of a pair (2, 3, H, W) in [0, 1]


class Lpips:
    """Learned perceptual distance of Zhang et al. 2018: weighted squared differences of unit features; 0 is equal."""

    def __init__(self, network: Network, backbone: Mapping[str, Tensor], heads: Mapping[str, Tensor]) -> None:
        self.network, self.backbone = network, backbone
        self.heads = [heads[key][0] for key in lpips_shapes(network)]  # (C, 1, 1) each

    def distances(self, candidates: np.ndarray, references: np.ndarray) -> np.ndarray:
        """Images (B, H, W, 3) uint8 twice -> (B,) float64"""
        return _pairwise(self.distance, self.heads[0].device, candidates, references)

    def distance(self, pair: Tensor) -> Tensor:
        """A pair (2, 3, H, W) in [0, 1] -> a scalar, with a gradient"""
        features = stages(self.network, self.backbone, _standardised(2 * pair - 1, _LPIPS_MEAN, _LPIPS_STD), max_pool)
        units = [one / ((one.square().sum(dim=1, keepdim=True) + _ZERO).sqrt() + 1e-10) for one in features]
        parts = [
            ((one[0] - one[1]).square() * head).sum(dim=0).mean() for one, head in zip(units, self.heads, strict=True)
        ]
        return torch.stack(parts).sum()


class Dists:
    """Structure and texture distance of Ding et al. 2020: similarity of means and covariances of features of VGG-16."""

    def __init__(self, backbone: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
        self.backbone = backbone
        total = weights["alpha"].double().sum() + weights["beta"].double().sum()
        self.of_means, self.of_structure = (
            (weights[name].double() / total).flatten().split(DISTS_CHANNELS) for name in ("alpha", "beta")
        )

    def distances(self, candidates: np.ndarray, references: np.ndarray) -> np.ndarray:
        """Images (B, H, W, 3) uint8 twice -> (B,) float64"""
        return _pairwise(self._distance, self.of_means[0].device, candidates, references)

    def _distance(self, pair: Tensor) -> Tensor:
        features = [pair, *stages(VGG16, self.backbone, _standardised(pair, _DISTS_MEAN, _DISTS_STD), l2_pool)]
        found = pair.new_ones((), dtype=torch.float64)
        for values, alpha, beta in zip(features, self.of_means, self.of_structure, strict=True):
            x, y = values.double().flatten(2)  # (C, P)
            mean_x, mean_y = x.mean(dim=1), y.mean(dim=1)
            covariance = ((x - mean_x[:, None]) * (y - mean_y[:, None])).mean(dim=1)
            variances = x.var(dim=1, correction=0) + y.var(dim=1, correction=0)
            found = found - (alpha * (2 * mean_x * mean_y + _C) / (mean_x.square() + mean_y.square() + _C)).sum()
            found = found - (beta * (2 * covariance + _C) / (variances + _C)).sum()
        return found


def stages(network: Network, weights: Mapping[str, Tensor], values: Tensor, pool: Pool) -> list[Tensor]:
    """Images (B, 3, H, W) -> features (B, C, h, w) behind the last ReLU of each stage."""
    found = []
    for stage, is_pooled in zip(network.stages, network.pooled, strict=True):
        values = pool(values, network.pool_kernel) if is_pooled else values
        for one in stage:
            weight, bias = (weights[f"features.{one.number}.{part}"] for part in ("weight", "bias"))
            padding = 2 if one.kernel == 11 else one.kernel // 2
            values = relu(conv2d(values, weight, bias, stride=one.stride, padding=padding))
        found.append(values)
    return found


def max_pool(values: Tensor, kernel: int) -> Tensor:
    """As torchvision has it."""
    return max_pool2d(values, kernel, stride=2)


def l2_pool(values: Tensor, kernel: int) -> Tensor:
    """Root of the mean square under a Hann window of 3 x 3, every second place; `kernel` is that of max pooling."""
    window = torch.tensor(np.hanning(5)[1:-1], dtype=values.dtype, device=values.device)
    window = torch.outer(window, window)
    channels = values.shape[1]
    squares = conv2d(
        values.square(), (window / window.sum()).expand(channels, 1, 3, 3), stride=2, padding=1, groups=channels
    )
    return (squares + 1e-12).sqrt()


def _pairwise(distance: Distance, device: torch.device, ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """(B, H, W, 3) uint8 twice -> (B,)"""
    found = []
    with torch.inference_mode():
        for one, other in zip(ours, theirs, strict=True):
            pair = torch.from_numpy(np.stack([one, other])).to(device).permute(0, 3, 1, 2).float() / 255
            found.append(float(distance(pair)))
    return np.array(found, dtype=np.float64)


def _standardised(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    return (images - images.new_tensor(mean)[:, None, None]) / images.new_tensor(std)[:, None, None]
