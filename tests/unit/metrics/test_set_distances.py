"""Distances between sets of features: closed forms, brute force, streams, intervals that cover, biases told."""

import numpy as np
import pytest
from scipy.linalg import sqrtm

from genloop.metrics.set_distances import (
    Gaussian,
    GroupedMoments,
    Moments,
    cmmd,
    fid,
    frechet,
    grouped_moments,
    jackknife,
    kid,
    polynomial_mmd,
)


def draw(count: int, size: int = 4, *, seed: int = 0, shift: float = 0.0, scale: float = 1.0) -> np.ndarray:
    rows = np.random.default_rng([seed, count, size]).normal(size=(count, size)) * scale + shift
    return rows.astype(np.float32)


def covariance(size: int, seed: int) -> np.ndarray:
    root = np.random.default_rng(seed).normal(size=(size, size))
    return root @ root.T / size


def test_the_frechet_distance_of_gaussians_with_one_axis_system_is_that_of_their_deviations():
    a = Gaussian(np.array([1.0, 2.0, 3.0]), np.diag([1.0, 4.0, 9.0]))
    b = Gaussian(np.array([0.0, 2.0, 5.0]), np.diag([4.0, 4.0, 1.0]))
    assert frechet(a, b) == pytest.approx(1 + 0 + 4 + (1 - 2) ** 2 + (2 - 2) ** 2 + (3 - 1) ** 2, abs=1e-12)
    assert frechet(a, a) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("size", [1, 3, 17])
def test_the_frechet_distance_is_that_of_the_matrix_square_root(size):
    a, b = (Gaussian(np.full(size, float(seed)), covariance(size, seed)) for seed in (1, 2))
    expected = size + np.trace(a.covariance + b.covariance - 2 * sqrtm(a.covariance @ b.covariance).real)
    assert frechet(a, b) == pytest.approx(expected, abs=1e-9)
    assert frechet(a, b) == pytest.approx(frechet(b, a), abs=1e-9)


def test_covariances_of_too_few_images_are_borne():
    a, b = Moments(20), Moments(20)
    a.add(draw(5, 20))
    b.add(draw(7, 20, seed=1))
    roots = [np.linalg.svd(m.gaussian().covariance) for m in (a, b)]
    halves = [(u * np.sqrt(s)) @ v for u, s, v in roots]
    shared = np.linalg.svd(halves[0] @ halves[1], compute_uv=False).sum()
    step = a.mean - b.mean
    expected = step @ step + np.trace(a.gaussian().covariance + b.gaussian().covariance) - 2 * shared
    assert frechet(a.gaussian(), b.gaussian()) == pytest.approx(expected, abs=1e-6)


def test_moments_of_a_stream_are_those_of_all_rows_far_from_the_origin_too():
    rows = draw(101, 5).astype(np.float64) + 1e6
    found = Moments(5)
    for part in np.array_split(rows, [0, 1, 2, 40, 100]):
        found.add(part)
    assert found.count == 101
    assert found.gaussian().mean == pytest.approx(rows.mean(axis=0), rel=1e-15)
    assert found.gaussian().covariance == pytest.approx(np.cov(rows.T), rel=1e-7)
    with pytest.raises(ValueError, match="at least 2 images, found 0"):
        Moments(5).gaussian()


def test_groups_together_are_all_rows_and_one_can_be_left_out():
    rows, clusters = draw(60), np.arange(60) // 3
    parts = [(rows[k : k + 7], clusters[k : k + 7]) for k in range(0, 60, 7)]
    found = grouped_moments(parts, 5)
    assert found.count == 60 and found.is_usable()
    assert found.gaussian().covariance == pytest.approx(np.cov(rows.T.astype(np.float64)))
    assert found.gaussian(2).mean == pytest.approx(rows[clusters % 5 != 2].mean(axis=0), rel=1e-6)
    with pytest.raises(ValueError, match="there are no images"):
        grouped_moments([])


def brute_kid(x: np.ndarray, y: np.ndarray) -> float:
    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return (float(np.dot(a.astype(float), b.astype(float))) / len(a) + 1) ** 3

    n, m = len(x), len(y)
    within_x = sum(kernel(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    within_y = sum(kernel(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return within_x + within_y - 2 * sum(kernel(a, b) for a in x for b in y) / (n * m)


def test_kid_is_what_brute_force_gives():
    x, y = draw(9), draw(7, seed=1, shift=0.5)
    assert polynomial_mmd(x, np.arange(9), y, np.arange(7)) == pytest.approx(brute_kid(x, y), rel=1e-12)


def test_two_images_of_a_prompt_are_no_pair():
    x, y = draw(6), draw(7, seed=1, shift=0.5)
    apart = [(i, j) for i in range(6) for j in range(6) if i // 2 != j // 2]
    kernel = (x.astype(float) @ x.T.astype(float) / 4 + 1) ** 3
    change = np.mean([kernel[pair] for pair in apart]) - np.mean(
        [kernel[i, j] for i in range(6) for j in range(6) if i != j]
    )
    assert polynomial_mmd(x, np.arange(6) // 2, y, np.arange(7)) == pytest.approx(brute_kid(x, y) + change, rel=1e-9)


@pytest.mark.parametrize("likeness", [0.0, 0.6, 0.9])  # of the images of a prompt
def test_images_that_are_alike_for_their_prompt_leave_kid_unbiased_and_its_interval_wide_enough(likeness):
    covered, values = 0, []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        prompts = np.repeat(rng.normal(size=(40, 6)), 4, axis=0) * np.sqrt(likeness)
        x = prompts + rng.normal(size=(160, 6)) * np.sqrt(1 - likeness)
        y = rng.normal(size=(160, 6))
        found = kid(x, np.arange(160) // 4, y, np.arange(160), seed, num_subsets=30, subset_size=80)
        values.append(found.value)
        covered += found.low <= 0 <= found.high
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(60)
    assert covered >= 53


def test_kid_of_one_distribution_is_zero_on_average_and_its_interval_covers_that():
    covered, values = 0, []
    for seed in range(60):
        sides = (draw(80, seed=seed), np.arange(80), draw(80, seed=seed + 1000), np.arange(80))
        found = kid(*sides, seed, num_subsets=40, subset_size=40)
        values.append(found.value)
        covered += found.low <= 0 <= found.high
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(60)
    assert covered >= 50
    assert found.bias == 0


def test_the_interval_of_kid_goes_by_what_was_drawn_not_by_what_was_asked_for():
    rows, sides = draw(40), []
    for clusters in (np.arange(40) // 4, np.arange(40)):  # of 4 images each; 10 of them ask for 2.5 prompts
        sides.append(kid(rows, clusters, draw(40, seed=1), clusters, 0, num_subsets=2000, subset_size=10))
    of_prompts, of_images = (found.high - found.value for found in sides)
    assert of_prompts == pytest.approx(of_images, rel=0.2)


def test_kid_is_the_same_for_the_same_seed_and_needs_four_prompts():
    sides = (draw(30), np.arange(30), draw(50, seed=1), np.arange(50))
    assert kid(*sides, 3) == kid(*sides, 3) != kid(*sides, 4)
    with pytest.raises(ValueError, match="4 prompts on each side"):
        kid(sides[0], np.arange(30) % 3, *sides[2:], 0)
    with pytest.raises(ValueError, match="2 prompts on each side"):
        polynomial_mmd(sides[0], np.zeros(30), *sides[2:])


def brute_cmmd(x: np.ndarray, y: np.ndarray, sigma: float = 10.0) -> float:
    def mean(a: np.ndarray, b: np.ndarray) -> float:
        values = [np.exp(-((p.astype(float) - q.astype(float)) ** 2).sum() / (2 * sigma**2)) for p in a for q in b]
        return float(np.mean(values))

    return 1000 * (mean(x, x) + mean(y, y) - 2 * mean(x, y))


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_cmmd_is_what_brute_force_gives():
    x, y = unit(draw(23, 8)), unit(draw(31, 8, seed=1, shift=0.3))
    found = cmmd(x, np.arange(23), y, np.arange(31), num_groups=5)
    assert found.value == pytest.approx(brute_cmmd(x, y), abs=1e-9)
    lost = [brute_cmmd(x[np.arange(23) % 5 != g], y[np.arange(31) % 5 != g]) for g in range(5)]
    assert found == pytest.approx(jackknife(brute_cmmd(x, y), lost), abs=1e-6)


def test_cmmd_of_a_set_with_itself_is_zero():
    x = unit(draw(40, 8))
    assert cmmd(x, np.arange(40), x, np.arange(40)).value == pytest.approx(0, abs=1e-9)


def test_fid_and_cmmd_of_one_distribution_are_biased_and_say_so():
    values, corrected = [], []
    for seed in range(30):
        sides = [grouped_moments([(draw(100, 6, seed=s), np.arange(100))]) for s in (seed, seed + 500)]
        found = fid(*sides)
        assert found.bias is not None and found.low < found.value < found.high
        values.append(found.value)
        corrected.append(found.value - found.bias)
    assert np.mean(values) > 0.1  # the true distance is 0
    assert abs(np.mean(corrected)) < 0.2 * np.mean(values)
    x, y = draw(100, 6), draw(100, 6, seed=9)
    found = cmmd(x, np.arange(100), y, np.arange(100), sigma=3.0)
    assert found.bias is not None and found.bias > 0 and abs(found.value - found.bias) < found.value


def test_the_corrected_fid_of_two_gaussians_is_near_the_closed_form_and_its_interval_covers_it():
    covered = 0
    for seed in range(40):
        images = grouped_moments([(draw(400, 3, seed=seed, shift=1.0, scale=2.0), np.arange(400))])
        reference = grouped_moments([(draw(400, 3, seed=seed + 99), np.arange(400))])
        found = fid(images, reference)
        truth = 3 * 1.0 + 3 * (2.0 - 1.0) ** 2
        assert found.bias is not None
        covered += found.low - found.bias <= truth <= found.high - found.bias
    assert covered >= 34


def test_against_mere_moments_the_distance_is_the_same():
    images = grouped_moments([(draw(50), np.arange(50))])
    reference = grouped_moments([(draw(60, seed=1), np.arange(60))])
    assert fid(images, reference.gaussian()).value == fid(images, reference).value


def test_too_few_clusters_give_a_distance_without_interval():
    few = GroupedMoments(4)
    few.add(draw(50), np.zeros(50, dtype=int))
    enough = grouped_moments([(draw(60, seed=1), np.arange(60))])
    for sides in ((few, Gaussian(np.zeros(4), np.eye(4))), (few, enough), (enough, few)):
        found = fid(*sides)
        assert np.isfinite(found.value) and np.isnan(found.low) and found.bias is None
    found = cmmd(draw(9), np.zeros(9, dtype=int), draw(9, seed=1), np.arange(9))
    assert np.isfinite(found.value) and np.isnan(found.high)


def test_features_of_two_sizes_are_refused():
    with pytest.raises(ValueError, match="features of 4 and of 5 numbers"):
        frechet(Gaussian(np.zeros(4), np.eye(4)), Gaussian(np.zeros(5), np.eye(5)))
    with pytest.raises(ValueError, match="features of 4 and of 5 numbers"):
        polynomial_mmd(draw(9), np.arange(9), draw(9, 5), np.arange(9))
