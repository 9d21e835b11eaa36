"""Files of perceptual distances with random weights, laid out as they are published."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from genloop.models.perceptual.config import ALEXNET, DISTS_SHAPES, VGG16, Shape, lpips_shapes

ALL = ("alexnet", "vgg16", "lpips", "lpips_vgg", "dists")


def write_perceptual_files(folder: Path, names: Sequence[str] = ALL) -> dict[str, Path]:
    """{alexnet, vgg16, lpips, lpips_vgg, dists: file}; networks keep the scale of their input."""
    rng = np.random.default_rng(3)

    def drawn(shapes: dict[str, Shape]) -> dict[str, torch.Tensor]:
        found = {}
        for key, shape in shapes.items():
            values = rng.standard_normal(shape, dtype=np.float32) * np.sqrt(2 / max(1, np.prod(shape[1:])))
            found[key] = torch.from_numpy(
                (values if key.startswith("features") else np.abs(values) + 0.01).astype("f4")
            )
        return found

    contents = {
        "alexnet": ALEXNET.shapes() | {"classifier.6.bias": (10,)},
        "vgg16": VGG16.shapes(),
        "lpips": lpips_shapes(ALEXNET),
        "lpips_vgg": lpips_shapes(VGG16),
        "dists": DISTS_SHAPES,
    }
    files = {name: folder / f"{name}{'.safetensors' if name == 'vgg16' else '.pth'}" for name in names}
    for name, file in files.items():
        (save_file if name == "vgg16" else torch.save)(drawn(contents[name]), file)
    return files
