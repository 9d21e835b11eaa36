"""The layers of AlexNet and VGG-16 as torchvision numbers them, and what their files must hold. No torch.

Zhang et al. 2018 (LPIPS), Ding et al. 2020 (DISTS).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Convolution:
    """features.NUMBER of torchvision's state dict, followed by a ReLU."""

    number: int
    channels_in: int
    channels_out: int
    kernel: int
    stride: int = 1


@dataclass(frozen=True, slots=True)
class Network:
    """Stages of convolutions; each but the first begins with a pooling, where `pooled` says so."""

    stages: tuple[tuple[Convolution, ...], ...]
    pooled: tuple[bool, ...]
    pool_kernel: int

    @property
    def channels(self) -> tuple[int, ...]:
        """Of the features behind each stage."""
        return tuple(stage[-1].channels_out for stage in self.stages)

    def shapes(self) -> dict[str, Shape]:
        """{key of torchvision's state dict: shape}; the classifier is not needed."""
        found: dict[str, Shape] = {}
        for one in (convolution for stage in self.stages for convolution in stage):
            found[f"features.{one.number}.weight"] = (one.channels_out, one.channels_in, one.kernel, one.kernel)
            found[f"features.{one.number}.bias"] = (one.channels_out,)
        return found


ALEXNET = Network(
    (
        (Convolution(0, 3, 64, 11, 4),),
        (Convolution(3, 64, 192, 5),),
        (Convolution(6, 192, 384, 3),),
        (Convolution(8, 384, 256, 3),),
        (Convolution(10, 256, 256, 3),),
    ),
    (False, True, True, False, False),
    3,
)
VGG16 = Network(
    (
        (Convolution(0, 3, 64, 3), Convolution(2, 64, 64, 3)),
        (Convolution(5, 64, 128, 3), Convolution(7, 128, 128, 3)),
        (Convolution(10, 128, 256, 3), Convolution(12, 256, 256, 3), Convolution(14, 256, 256, 3)),
        (Convolution(17, 256, 512, 3), Convolution(19, 512, 512, 3), Convolution(21, 512, 512, 3)),
        (Convolution(24, 512, 512, 3), Convolution(26, 512, 512, 3), Convolution(28, 512, 512, 3)),
    ),
    (False, True, True, True, True),
    2,
)
NETWORKS = {"alexnet": ALEXNET, "vgg16": VGG16}
LEAST_SIDE = 32  # pixels of an image, of which the last stage has a place left
DISTS_CHANNELS = (3, *VGG16.channels)  # the image itself is the first feature
DISTS_SHAPES: dict[str, Shape] = {name: (1, sum(DISTS_CHANNELS), 1, 1) for name in ("alpha", "beta")}


def lpips_shapes(network: Network) -> dict[str, Shape]:
    """{key of a file of linear heads, as the package lpips ships them: shape}"""
    return {f"lin{place}.model.1.weight": (1, channels, 1, 1) for place, channels in enumerate(network.channels)}


def network_of(heads: Mapping[str, Shape], path: Path) -> str:
    """The network that linear heads of LPIPS were fitted to; ValueError for heads of none."""
    for name, network in NETWORKS.items():
        if all(tuple(heads.get(key, ())) == shape for key, shape in lpips_shapes(network).items()):
            return name
    raise ValueError(f"{path}: holds no linear heads of LPIPS for {' or '.join(NETWORKS)} (lin0.model.1.weight ...)")


def check_shapes(found: Mapping[str, Shape], expected: Mapping[str, Shape], path: Path) -> None:
    """ValueError of one line that names the first tensor that lacks or has another shape."""
    for key, shape in expected.items():
        if key not in found:
            raise ValueError(f"{path}: has no tensor {key}; use the file as published")
        if tuple(found[key]) != shape:
            raise ValueError(f"{path}: {key} is {list(found[key])}, not {list(shape)}; use the file as published")
