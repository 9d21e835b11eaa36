"""Paired metrics give the values that scikit-image, ImageHash and OpenCV gave for the same images."""

import json

import numpy as np
import pytest

from genloop.metrics.paired.pixels import Pixels
from genloop.metrics.paired.table import pair_metrics
from tests.goldens.roots import golden_paths

RECORDED = {
    "ssim": "ssim_gray_gauss",
    "mse": "mse_255",
    "histogram_distance": "hist_bhatt_hsv",
    "phash": "phash_sim",
    "sharpness_ratio": "sharpness_ratio_b_over_a",
    "delta_e": "deltaE2000_mean",
    "colour_moments": "color_moment_l1",
}
DIGITS = 5.1e-7  # the recordings have six


def scene(seed: int = 0, side: int = 128) -> np.ndarray:
    """Waves of colour behind six discs (H, W, 3) uint8"""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side
    image = np.stack([0.5 + 0.4 * np.sin(6 * x + seed), 0.5 + 0.4 * np.cos(5 * y), 0.4 + 0.3 * np.sin(8 * (x + y))], -1)
    for _ in range(6):
        across, down, radius = rng.random(3) * [1, 1, 0.2] + [0, 0, 0.05]
        image[(x - across) ** 2 + (y - down) ** 2 < radius**2] = rng.random(3)
    return (np.clip(image, 0, 1) * 255).round().astype(np.uint8)


def changed(name: str) -> np.ndarray:
    """The scene as the recording changed it."""
    image = scene()
    noise = np.random.default_rng(1).normal(0, 15, image.shape)
    return {
        "identity": image,
        "bright+40": np.clip(image.astype(int) + 40, 0, 255).astype(np.uint8),
        "noise15": np.clip(image + noise, 0, 255).astype(np.uint8),
        "shift8": np.roll(image, 8, axis=1),
        "other": scene(7),
        "flip": image[:, ::-1],
        "const": np.full_like(image, 128),
    }[name]


@pytest.fixture(scope="module")
def recorded() -> dict[str, dict[str, float]]:
    """All but the blur, whose image depends on OpenCV's fixed-point filter."""
    found = json.loads(golden_paths("diffusion/metrics_golden.json")[0].read_text())
    return {name: values for name, values in found.items() if name != "blur3"}


@pytest.fixture(scope="module")
def sides(recorded) -> tuple[Pixels, Pixels]:
    images = np.stack([changed(name) for name in recorded])
    return Pixels(images), Pixels(np.stack([scene()] * len(images)))


@pytest.mark.parametrize("name", RECORDED)
def test_a_batch_has_the_recorded_values(name, recorded, sides):
    found = pair_metrics(5)[name].compute(*sides)
    expected = [values[RECORDED[name]] for values in recorded.values()]
    np.testing.assert_allclose(found, expected, rtol=0, atol=DIGITS)


def test_the_correlation_is_pearsons_of_the_histograms_that_opencv_makes(recorded, sides):
    found = pair_metrics(5)["histogram_correlation"].compute(*sides)
    for value, ours, theirs, values in zip(found, sides[0].histogram, sides[1].histogram, recorded.values()):
        assert value == pytest.approx(np.corrcoef(ours, theirs)[0, 1], abs=1e-12)
        # compareHist takes 64 instead of 512 for the number of bins
        moments = [(x * y).sum() - 1 / 64 for x, y in ((ours, theirs), (ours, ours), (theirs, theirs))]
        assert moments[0] / np.sqrt(moments[1] * moments[2]) == pytest.approx(values["hist_correl_hsv"], abs=DIGITS)
