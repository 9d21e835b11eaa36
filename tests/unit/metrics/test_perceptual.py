"""LPIPS and DISTS equal a second computation by modules of torch; a missing or wrong file is one line."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from genloop.checkpoint import load_file
from genloop.job import run_command
from genloop.metrics.paired.maker import PairedMetrics, PairOptions
from genloop.metrics.paired.pixels import Pixels
from jobs import metrics
from tests.runs import refusal
from tests.unit.metrics.test_paired import pictures
from tests.worlds.image_folders import small_set, write_images

LAYERS = {  # torchvision's `features`: channels of 3 x 3 convolutions, M for a pooling
    "vgg16": [64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512],
    "alexnet": [(64, 11, 4, 2), "M", (192, 5, 1, 2), "M", (384, 3, 1, 1), (256, 3, 1, 1), (256, 3, 1, 1)],
}
ENDS = {"vgg16": (3, 8, 15, 22, 29), "alexnet": (1, 4, 7, 9, 11)}  # the ReLU that closes each stage


class HannPool(nn.Module):
    """The pooling of DISTS."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = torch.tensor([0.25, 0.5, 0.25])
        kernel = (rows[:, None] * rows[None])[None, None].repeat(x.shape[1], 1, 1, 1)
        return torch.sqrt(nn.functional.conv2d(x**2, kernel, stride=2, padding=1, groups=x.shape[1]) + 1e-12)


def network(name: str, file: Path, *, hann: bool = False) -> nn.Sequential:
    modules: list[nn.Module] = []
    width = 3
    for layer in LAYERS[name]:
        if layer == "M":
            modules.append(HannPool() if hann else nn.MaxPool2d(3 if name == "alexnet" else 2, 2))
            continue
        out, kernel, stride, padding = layer if isinstance(layer, tuple) else (layer, 3, 1, 1)
        modules += [nn.Conv2d(width, out, kernel, stride, padding), nn.ReLU()]
        width = out
    features = nn.Sequential(*modules)
    weights = {key.removeprefix("features."): value for key, value in load_file(file).items() if "features" in key}
    features.load_state_dict(weights)
    return features


def activations(features: nn.Sequential, x: torch.Tensor, name: str) -> list[torch.Tensor]:
    found = []
    for place, module in enumerate(features):
        x = module(x)
        if place in ENDS[name]:
            found.append(x)
    return found


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values)[:, None, None]


def expected_lpips(files: dict[str, Path], heads: str, name: str, x: torch.Tensor, y: torch.Tensor) -> np.ndarray:
    features, linear = network(name, files[name]), load_file(files[heads])
    sides = []
    for image in (x, y):
        scaled = (image * 2 - 1 - column(-0.030, -0.088, -0.188)) / column(0.458, 0.448, 0.450)
        sides.append([nn.functional.normalize(f, dim=1) for f in activations(features, scaled, name)])
    total = torch.zeros(len(x))
    for place, (a, b) in enumerate(zip(*sides)):
        total += nn.functional.conv2d((a - b) ** 2, linear[f"lin{place}.model.1.weight"]).mean(dim=(1, 2, 3))
    return total.numpy()


def expected_dists(files: dict[str, Path], x: torch.Tensor, y: torch.Tensor) -> np.ndarray:
    features, weights = network("vgg16", files["vgg16"], hann=True), load_file(files["dists"])
    total = weights["alpha"].sum() + weights["beta"].sum()
    found, start = torch.ones(len(x)), 0
    scaled = [(image - column(0.485, 0.456, 0.406)) / column(0.229, 0.224, 0.225) for image in (x, y)]
    sides = [[image, *activations(features, one, "vgg16")] for image, one in zip((x, y), scaled)]
    for a, b in zip(*sides):
        part = slice(start, start := start + a.shape[1])
        means = a.mean(dim=(2, 3)), b.mean(dim=(2, 3))
        covariance = (a * b).mean(dim=(2, 3)) - means[0] * means[1]
        spread = a.var(dim=(2, 3), correction=0) + b.var(dim=(2, 3), correction=0)
        of_means = (2 * means[0] * means[1] + 1e-6) / (means[0] ** 2 + means[1] ** 2 + 1e-6)
        shares = [weights[key].flatten()[part] / total for key in ("alpha", "beta")]
        found -= (shares[0] * of_means + shares[1] * (2 * covariance + 1e-6) / (spread + 1e-6)).sum(dim=1)
    return found.numpy()


@pytest.mark.parametrize("name, heads, backbone", [
    ("lpips", "lpips", "alexnet"),
    ("lpips", "lpips_vgg", "vgg16"),
    ("dists", "dists", "vgg16"),
])  # fmt: skip
def test_distances_are_those_of_the_published_networks(name, heads, backbone, perceptual_files):
    images = pictures(side=40)[:4]
    options = PairOptions(of=[name], weights={name: perceptual_files[heads], backbone: perceptual_files[backbone]})
    found = PairedMetrics(options).compute[name](Pixels(images[:2]), Pixels(images[2:]))
    x, y = (torch.from_numpy(side).permute(0, 3, 1, 2).float() / 255 for side in (images[:2], images[2:]))
    with torch.inference_mode():
        if name == "lpips":
            expected = expected_lpips(perceptual_files, heads, backbone, x, y)
        else:
            expected = expected_dists(perceptual_files, x, y)
    assert (found > 0.01).all()
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-6)


def test_a_run_measures_what_weights_are_given_for(perceptual_files, tmp_path):
    folder = write_images(tmp_path / "images", small_set())
    given = [f"images={folder}", f"reference={folder}", "metrics.pairs.of=[mse]", "metrics.pairs.size=32"]
    given += [f"metrics.pairs.weights.{key}={perceptual_files[key]}" for key in ("lpips", "alexnet")]
    assert run_command(metrics, [*given, f"out={tmp_path / 'run'}", "device=cpu", "limit=4"]) == 0
    table = (tmp_path / "run" / "table.md").read_text()
    assert "lpips" in table and "mse" in table and "dists" not in table


@pytest.mark.parametrize("given, key", [
    ({"of": "[dists]"}, "weights.dists"),
    ({"lpips": "lpips"}, "weights.alexnet"),
    ({"lpips": "lpips_vgg", "alexnet": "alexnet"}, "weights.vgg16"),
    ({"lpips": "dists", "alexnet": "alexnet"}, "lin0.model.1.weight"),
    ({"dists": "lpips", "vgg16": "vgg16"}, "alpha"),
    ({"lpips": "lpips", "alexnet": "vgg16"}, "features.0.weight"),
    ({"dists": "absent", "vgg16": "vgg16"}, "no file"),
])  # fmt: skip
def test_a_missing_or_wrong_file_is_one_line(given, key, perceptual_files, tmp_path, capsys):
    folder = write_images(tmp_path / "images", small_set())
    files = perceptual_files | {"absent": tmp_path / "absent.pth"}
    words = [
        f"metrics.pairs.of={value}" if name == "of" else f"metrics.pairs.weights.{name}={files[value]}"
        for name, value in given.items()
    ]
    words += [f"images={folder}", f"reference={folder}", "metrics.pairs.size=32", f"out={tmp_path / 'run'}"]
    assert key in refusal(metrics, words, tmp_path, capsys)
