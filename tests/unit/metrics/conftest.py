"""Files of perceptual distances, once for all tests of metrics."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def perceptual_files(tmp_path_factory) -> dict[str, Path]:
    """{alexnet, vgg16, lpips, lpips_vgg, dists: file}"""
    from tests.worlds.perceptual_files import write_perceptual_files

    return write_perceptual_files(tmp_path_factory.mktemp("perceptual"))
