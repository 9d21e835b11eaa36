"""Files of perceptual distances with random weights, laid out as they are published."""

from pathlib import Path

import numpy as np
import pytest

from genloop.models.perceptual.config import ALEXNET, DISTS_SHAPES, VGG16, Shape, lpips_shapes


@pytest.fixture(scope="session")
def perceptual_files(tmp_path_factory) -> dict[str, Path]:
    """{alexnet, vgg16, lpips, lpips_vgg, dists: file}; networks keep the scale of their input."""
    import torch
    from safetensors.torch import save_file

    folder, rng = tmp_path_factory.mktemp("perceptual"), np.random.default_rng(3)

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
    files = {name: folder / f"{name}{'.safetensors' if name == 'vgg16' else '.pth'}" for name in contents}
    for name, shapes in contents.items():
        (save_file if name == "vgg16" else torch.save)(drawn(shapes), files[name])
    return files
