"""TEED, a tiny edge detector (Soria et al. 2023), in the layout of MTEED.pth, the weights behind Anyline.

Three scales of features each become an edge map of the picture's size; a fourth one weighs the three. H, W = pixels,
multiples of 8.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from genloop.checkpoint import compare_manifest, load_archive

WIDTHS = (16, 32, 48)


def smish(x: Tensor) -> Tensor:
    """x tanh(ln(1 + sigmoid(x))) (Wang et al. 2022)"""
    return x * torch.tanh(torch.log(1 + torch.sigmoid(x)))


class Smish(nn.Module):
    """`smish` as a layer."""

    def forward(self, x: Tensor) -> Tensor:
        """Of each number."""
        return smish(x)


class TwoConvolutions(nn.Module):
    """Two convolutions of 3 x 3, each before a smish; a block whose features are added to ends without one."""

    def __init__(self, before: int, after: int, *, stride: int = 1, ends_with_smish: bool = True) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, padding=1, stride=stride)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1)
        self.last = Smish() if ends_with_smish else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, before, H, W) -> (B, after, H / stride, W / stride)"""
        return self.last(self.conv2(smish(self.conv1(x))))


class Dense(nn.Module):
    """Mean of what two convolutions make of a map and of another map of their width."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, padding=2)
        self.conv2 = nn.Conv2d(after, after, 3)

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        """(B, before, h, w), (B, after, h, w) -> (B, after, h, w)"""
        return 0.5 * (self.conv2(smish(self.conv1(smish(x)))) + other)


class Up(nn.Module):
    """(B, width, h, w) -> (B, 1, h 2^times, w 2^times)"""

    def __init__(self, width: int, times: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for number in range(times):
            after = 1 if number == times - 1 else WIDTHS[0]
            kernel = 2**times
            larger = nn.ConvTranspose2d(after, after, kernel, stride=2, padding=(kernel - 2) // 2)
            layers += [nn.Conv2d(width, after, 1), Smish(), larger]
            width = after
        self.features = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return self.features(x)


class Fusion(nn.Module):
    """(B, 3, H, W) edge maps -> (B, 1, H, W)"""

    def __init__(self) -> None:
        super().__init__()
        self.DWconv1 = nn.Conv2d(3, 24, 3, padding=1, groups=3)
        self.DWconv2 = nn.Conv2d(24, 24, 3, padding=1, groups=24)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        once = self.DWconv1(smish(x))
        return smish((self.DWconv2(smish(once)) + once).sum(1, keepdim=True))


class Teed(nn.Module):
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        low, middle, high = WIDTHS
        self.block_1 = TwoConvolutions(3, low, stride=2)
        self.block_2 = TwoConvolutions(low, middle, ends_with_smish=False)
        self.dblock_3 = nn.ModuleDict({"denselayer1": Dense(middle, high)})
        self.side_1 = nn.ModuleDict({"conv": nn.Conv2d(low, middle, 1, stride=2)})
        self.pre_dense_3 = nn.ModuleDict({"conv": nn.Conv2d(middle, high, 1)})
        self.up_block_1, self.up_block_2, self.up_block_3 = Up(low, 1), Up(middle, 1), Up(high, 2)
        self.block_cat = Fusion()
        self.smaller = nn.MaxPool2d(3, stride=2, padding=1)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) in 0 .. 255 -> (B, 4, H, W) logits of an edge at the three scales, and of all"""
        first = self.block_1(pixels)
        second = self.block_2(first)
        half = self.smaller(second)
        third = self.dblock_3["denselayer1"](half + self.side_1["conv"](first), self.pre_dense_3["conv"](half))
        maps = torch.cat([self.up_block_1(first), self.up_block_2(second), self.up_block_3(third)], dim=1)
        return torch.cat([maps, self.block_cat(maps)], dim=1)


def load_teed(file: Path, device: str) -> Teed:
    """Of MTEED.pth, of which nothing is unpickled; ValueError for other tensors."""
    with torch.device("meta"):
        model = Teed()
    state = load_archive(file)
    expected = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    compare_manifest(expected, {key: tuple(value.shape) for key, value in state.items()}, file, "TEED")
    model.load_state_dict(state, assign=True)
    return model.to(device).float().eval().requires_grad_(False)
