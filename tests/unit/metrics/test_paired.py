"""The contract of paired metrics, each against its own table row; and values that can be had in another way."""

import numpy as np
import pytest

from genloop.metrics.paired.ciede import ciede2000
from genloop.metrics.paired.maker import LEARNT, PairedMetrics, PairOptions
from genloop.metrics.paired.pixels import Pixels
from genloop.metrics.paired.table import NAMES, Compute, PairMetric, pair_metrics

METRICS = pair_metrics(2)
ROUNDING = 1e-9


def pictures(num: int = 6, side: int = 24) -> np.ndarray:
    """Smooth, flat, grey and noisy images (B, H, W, 3) uint8"""
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:side, :side] / side
    smooth = [
        np.stack([np.sin(n * x + y), np.cos(n * y), np.sin(x * y * n)], -1) * 120 + 128 for n in range(1, num - 2)
    ]
    grey = np.repeat(rng.integers(0, 256, (side, side, 1)), 3, axis=2)
    noise = rng.integers(0, 256, (side, side, 3))
    return np.stack([*smooth, grey, noise, np.full((side, side, 3), (200, 30, 90))]).astype(np.uint8)


def all_pairs(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every image beside every other, itself left out."""
    pairs = [(one, other) for one in range(len(images)) for other in range(len(images)) if one != other]
    ours, theirs = zip(*pairs)
    return images[list(ours)], images[list(theirs)]


@pytest.fixture(params=[*NAMES, *LEARNT])
def subject(request) -> tuple[PairMetric, Compute, np.ndarray]:
    """A metric, what computes it, and images that are large enough for it."""
    name = request.param
    if name in METRICS:
        metric = METRICS[name]
        assert metric.compute is not None
        return metric, metric.compute, pictures()
    files = request.getfixturevalue("perceptual_files")
    options = PairOptions(of=[name], weights={key: files[key] for key in ("alexnet", "vgg16", name)})
    return LEARNT[name], PairedMetrics(options).compute[name], pictures(side=32)[[0, 4, 5]]


def test_values_lie_in_their_range_and_depend_on_their_pair_alone(subject):
    metric, compute, images = subject
    sides = all_pairs(images)
    found = compute(Pixels(sides[0]), Pixels(sides[1]))
    known = found[np.isfinite(found)]
    assert len(known) >= len(found) / 2 and found.dtype == np.float64
    assert (known >= metric.low).all() and (known <= metric.high + ROUNDING).all()
    alone = [compute(Pixels(a[None]), Pixels(b[None]))[0] for a, b in zip(*sides)]
    np.testing.assert_allclose(found, alone, rtol=ROUNDING, atol=ROUNDING)
    order = np.random.default_rng(0).permutation(len(found))
    np.testing.assert_allclose(
        compute(Pixels(sides[0][order]), Pixels(sides[1][order])), found[order], rtol=ROUNDING, atol=ROUNDING
    )


def test_equal_images_have_the_best_value_and_others_have_less(subject):
    metric, compute, images = subject
    sides = all_pairs(images)
    equal = compute(Pixels(images), Pixels(images))
    if np.isinf(metric.best):
        assert np.isnan(equal).all()
    else:
        np.testing.assert_allclose(equal[np.isfinite(equal)], metric.best, rtol=0, atol=ROUNDING)
    merits = metric.merit(compute(Pixels(sides[0]), Pixels(sides[1])))
    assert np.nanmax(merits) <= metric.ceiling + ROUNDING
    assert np.nanmean(merits) < metric.ceiling


def test_sides_may_be_exchanged_where_the_table_says_so(subject):
    metric, compute, images = subject
    sides = all_pairs(images)
    one, other = (compute(Pixels(a), Pixels(b)) for a, b in (sides, sides[::-1]))
    assert np.allclose(one, other, rtol=ROUNDING, atol=ROUNDING, equal_nan=True) is metric.is_symmetric


# Sharma, Wu and Dalal (2005), table 1
@pytest.mark.parametrize(
    "one, other, expected",
    [
        ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
        ((50, 3.1571, -77.2803), (50, 0, -82.7485), 2.8615),
        ((50, 2.8361, -74.0200), (50, 0, -82.7485), 3.4412),
        ((50, -1.3802, -84.2814), (50, 0, -82.7485), 1.0000),
        ((50, 0, 0), (50, -1, 2), 2.3669),
        ((50, 2.49, -0.001), (50, -2.49, 0.0009), 7.1792),
        ((50, 2.49, -0.001), (50, -2.49, 0.0010), 7.1792),
        ((50, 2.49, -0.001), (50, -2.49, 0.0011), 7.2195),
        ((50, 2.5, 0), (50, 0, -2.5), 4.3065),
        ((50, 2.5, 0), (73, 25, -18), 27.1492),
        ((2.0776, 0.0795, -1.1350), (0.9033, -0.0636, -0.5514), 0.9082),
    ],
)
def test_ciede2000_has_the_published_values_on_both_sides_of_its_jumps(one, other, expected):
    x, y = (np.array(colour, dtype=np.float64)[:, None] for colour in (one, other))
    assert ciede2000(x, y).item() == pytest.approx(expected, abs=5.1e-5)
    assert ciede2000(y, x).item() == pytest.approx(expected, abs=5.1e-5)


def test_ssim_is_that_of_a_gaussian_filter_over_the_whole_image():
    from scipy.ndimage import gaussian_filter

    images = pictures(side=40)
    x, y = (Pixels(images[place][None]).luma[0].numpy() for place in (0, 1))
    a, b, aa, bb, ab = (gaussian_filter(field, 1.5, truncate=3.5) for field in (x, y, x * x, y * y, x * y))
    c1, c2 = 0.01**2 * 255**2, 0.03**2 * 255**2
    field = (2 * a * b + c1) * (2 * (ab - a * b) + c2) / ((a * a + b * b + c1) * (aa - a * a + bb - b * b + c2))
    found = METRICS["ssim"].compute(Pixels(images[:1]), Pixels(images[1:2]))
    assert found[0] == pytest.approx(field[5:-5, 5:-5].mean(), abs=1e-12)
    assert pair_metrics(1)["ms_ssim"].compute(Pixels(images[:1]), Pixels(images[1:2])) == pytest.approx(
        found, abs=1e-12
    )


def test_the_distance_of_palettes_is_that_of_their_colours():
    flat = [np.full((1, 16, 16, 3), colour, dtype=np.uint8) for colour in ((255, 255, 255), (0, 0, 0))]
    assert METRICS["dominant_colours"].compute(*map(Pixels, flat))[0] == pytest.approx(100, abs=1e-2)
    half = flat[0].copy()
    half[:, :8] = 0
    assert METRICS["dominant_colours"].compute(Pixels(half), Pixels(flat[1]))[0] == pytest.approx(50, abs=1e-2)


def test_a_scorer_takes_images_of_many_sizes_and_brings_pairs_to_one():
    small, large = pictures(), pictures(side=48)
    scorer = PairedMetrics(PairOptions(of=["ssim", "mse"], size=32))
    found = scorer.compare([*small, *large], [*large, *large])
    assert len(found) == 2 * len(small) and all(set(values) == {"ssim", "mse"} for values in found)
    assert found[len(small)] == {"ssim": pytest.approx(1.0), "mse": 0.0}
    assert 0 < found[0]["mse"] < 500
