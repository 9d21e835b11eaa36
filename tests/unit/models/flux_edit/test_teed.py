"""TEED: the maps of the public network for given weights, and a file that does not fit is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from genloop.models.flux_edit.annotators import Annotators
from genloop.models.flux_edit.teed import Teed, load_teed

PUBLISHED = json.loads((Path(__file__).parents[3] / "data" / "flux_edit" / "teed.json").read_text())


def waves(count: int, pace: float, start: float = 0.0) -> torch.Tensor:
    return torch.sin(torch.arange(count, dtype=torch.float64) * pace + start)


def write_teed(file: Path) -> Path:
    """Weights that follow from a formula."""
    state = Teed().state_dict()
    for number, (key, value) in enumerate(sorted(state.items())):
        state[key] = (0.2 * waves(value.numel(), 1.7, number)).view(value.shape).float()
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, file)
    return file


def test_the_maps_are_those_of_the_public_network(tmp_path: Path) -> None:
    model = load_teed(write_teed(tmp_path / "MTEED.pth"), "cpu")
    assert sum(parameter.numel() for parameter in model.parameters()) == 58_910
    pixels = (waves(3 * 16 * 24, 0.37).view(1, 3, 16, 24) * 127 + 128).round().float()
    np.testing.assert_allclose(model(pixels)[0, :, 3::6, 5::9].numpy(), PUBLISHED["maps"], atol=2e-5)


def test_edges_have_three_levels_and_the_size_of_the_picture(tmp_path: Path) -> None:
    write_teed(tmp_path / "anyline" / "MTEED.pth")
    picture = np.random.default_rng(0).integers(0, 256, (16, 32, 3), dtype=np.uint8)
    found = Annotators(tmp_path).edges(picture)
    assert found.shape == (16, 32) and found.dtype == np.uint8 and set(np.unique(found)) <= {0, 127, 255}


def test_a_file_of_another_network_is_refused_by_its_name(tmp_path: Path) -> None:
    file = write_teed(tmp_path / "MTEED.pth")
    state = torch.load(file, weights_only=True)
    del state["block_1.conv1.bias"]
    torch.save(state, file)
    with pytest.raises(ValueError, match=r"MTEED\.pth.*block_1\.conv1\.bias"):
        load_teed(file, "cpu")
