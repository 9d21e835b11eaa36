"""Numbers about judges: against definitions written out, on cases whose answer is known, and their intervals."""

import numpy as np
import pytest

from genloop.stats.judges.quality import (
    JudgeAnswers,
    accuracy,
    area_under_curve,
    auc,
    auc_within,
    calibration_error,
    describe,
    fit_platt,
    reliability,
    sigmoid,
)


def made_up(n: int = 400, prompts: int = 40, seed: int = 0) -> JudgeAnswers:
    """Prompts of different difficulty, answers that know something about the image."""
    rng = np.random.default_rng(seed)
    prompt = np.repeat(np.arange(prompts), n // prompts)
    level, image = rng.normal(size=prompts)[prompt], rng.normal(size=n)
    labels = (rng.random(n) < sigmoid(2 * level + image)).astype(float)
    return JudgeAnswers(labels, sigmoid(2 * level + image + rng.normal(size=n)), prompt.tolist())


def auc_by_pairs(labels: np.ndarray, p_yes: np.ndarray) -> float:
    won = pairs = 0.0
    for i in range(len(labels)):
        for j in range(len(labels)):
            if i != j:
                weight = labels[i] * (1 - labels[j])
                pairs += weight
                won += weight * ((p_yes[i] > p_yes[j]) + 0.5 * (p_yes[i] == p_yes[j]))
    return won / pairs


@pytest.mark.parametrize("labels", [[0, 1, 1, 0, 1, 0, 0], [0.25, 1, 0.75, 0, 0.5, 0, 1]])
def test_the_auc_is_the_share_of_pairs_in_the_right_order(labels):
    labels, p_yes = np.array(labels, dtype=float), np.array([0.2, 0.9, 0.5, 0.5, 0.1, 0.5, 0.8])
    assert area_under_curve(labels, p_yes) == pytest.approx(auc_by_pairs(labels, p_yes))


def test_weights_count_an_answer_as_often_as_copies_of_it_would():
    labels, p_yes = np.array([0.0, 1, 0, 1]), np.array([0.3, 0.2, 0.1, 0.7])
    weights = np.array([[1.0, 2, 1, 3], [1, 1, 1, 1]])
    copies = np.repeat(np.arange(4), [1, 2, 1, 3])
    expected = [float(area_under_curve(labels[copies], p_yes[copies])), float(area_under_curve(labels, p_yes))]
    assert area_under_curve(labels, p_yes, weights) == pytest.approx(expected)


def test_a_judge_that_only_knows_the_prompt_is_useless_within_prompts():
    answers = made_up()
    means = np.array([answers.labels[np.array(answers.prompts) == prompt].mean() for prompt in answers.prompts])
    prior = JudgeAnswers(answers.labels, means, answers.prompts)
    pooled, (within, groups) = auc(prior, 0), auc_within(prior, 0)
    assert pooled is not None and pooled.estimate > 0.75
    assert within is not None and within.low < within.estimate == 0.5 < within.high
    assert 20 < groups <= 40


def test_groups_narrow_down_who_is_compared():
    labels, p_yes = np.array([1.0, 0, 1, 0]), np.array([0.4, 0.3, 0.9, 0.8])
    one = JudgeAnswers(labels, p_yes, ["a"] * 4)
    two = JudgeAnswers(labels, p_yes, ["a"] * 4, [("a", 3), ("a", 3), ("a", 6), ("a", 6)])
    assert auc_within(one, 0)[0].estimate == pytest.approx(0.75)
    within, groups = auc_within(two, 0)
    assert (within.estimate, groups) == (1.0, 2) and within.low < 0.5  # of one prompt


def test_few_prompts_that_are_all_ranked_right_do_not_make_a_judge_perfect():
    few, many = (
        JudgeAnswers(np.array([1.0, 0.0] * n), np.array([0.9, 0.1] * n), [i // 2 for i in range(2 * n)])
        for n in (3, 100)
    )
    for measure in (auc, lambda answers, seed: auc_within(answers, seed)[0]):
        assert measure(few, 0).estimate == measure(many, 0).high == 1
        assert 0.1 < measure(few, 0).low < 0.5 and 0.9 < measure(many, 0).low < 1


def test_labels_that_are_all_the_same_have_no_auc():
    answers = JudgeAnswers(np.ones(5), np.linspace(0, 1, 5), list(range(5)))
    assert auc(answers, 0) is None
    assert auc_within(answers, 0) == (None, 0)
    assert describe(answers, 0)["auc"] is None


def test_intervals_hold_the_estimate_and_shrink_with_the_number_of_prompts():
    wide, narrow = made_up(200, 20), made_up(3200, 320)
    for measure in (lambda a: auc(a, 1), lambda a: auc_within(a, 1)[0], accuracy, lambda a: calibration_error(a, 1)):
        few, many = measure(wide), measure(narrow)
        assert few.low <= few.estimate <= few.high
        assert many.high - many.low < 0.5 * (few.high - few.low)


def test_the_calibration_error_is_the_mean_gap_of_the_bins():
    p_yes = np.array([0.05, 0.05, 0.55, 0.55, 0.95, 1.0])
    labels = np.array([0.0, 1, 1, 0, 1, 1])
    answers = JudgeAnswers(labels, p_yes, list("abcdef"))
    expected = (2 * abs(0.5 - 0.05) + 2 * abs(0.5 - 0.55) + 2 * abs(1 - 0.975)) / 6
    assert calibration_error(answers, 0).estimate == pytest.approx(expected)
    assert [(bar.low, bar.n) for bar in reliability(answers)] == [(0.0, 2), (0.5, 2), (0.9, 2)]
    assert all(bar.yes.low <= bar.yes.estimate <= bar.yes.high for bar in reliability(answers))


def test_platt_scaling_undoes_a_wrong_scale_and_shift():
    rng = np.random.default_rng(0)
    margins = rng.normal(size=20000) * 2
    labels = (rng.random(20000) < sigmoid(0.5 * margins - 1)).astype(float)
    a, b = fit_platt(labels, margins)
    assert (a, b) == pytest.approx((0.5, -1), abs=0.05)
    raw = JudgeAnswers(labels, sigmoid(margins), list(range(20000)))
    scaled = JudgeAnswers(labels, sigmoid(a * margins + b), list(range(20000)))
    assert calibration_error(scaled, 0).estimate < 0.02 < 0.15 < calibration_error(raw, 0).estimate


@pytest.mark.parametrize("margins", [np.arange(-5.0, 5.0), np.zeros(10), np.arange(-5.0, 5.0) * 1e3])
def test_platt_scaling_stays_finite_when_labels_are_separable(margins):
    a, b = fit_platt((np.arange(10) >= 5).astype(float), margins)
    assert np.isfinite([a, b]).all()


def test_the_same_seed_gives_the_same_numbers():
    assert describe(made_up(), 3) == describe(made_up(), 3)


@pytest.mark.parametrize(
    ("labels", "p_yes", "prompts"),
    [([1.0], [0.5, 0.5], ["a"]), ([], [], []), ([1.0], [1.5], ["a"]), ([1.0], [float("nan")], ["a"])],
)
def test_answers_that_are_none_are_refused(labels, p_yes, prompts):
    with pytest.raises(ValueError, match="must be"):
        JudgeAnswers(np.array(labels), np.array(p_yes), prompts)
