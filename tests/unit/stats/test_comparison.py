"""Comparing two evaluations: pairs, claims that know of prompts, flips, nearness to thresholds, regimes."""

import copy
import json
from dataclasses import replace

import numpy as np
import pytest

from genloop.report.figures.forest import forest_svg
from genloop.runs.evaluations import check_evaluation, read_evaluation
from genloop.stats.comparison.compare import OVERALL, compare, coverage, pair_up
from genloop.stats.comparison.regime import COVERAGE, Differing, conditions, differing, names_of, refuse
from genloop.stats.comparison.tables import as_json, markdown, sentence
from genloop.stats.paired import detectable, sign_flip_test, standard_error
from genloop.stats.resampling import paired_bootstrap
from tests.worlds.evaluations import CARD, evaluation, verdict_rows, write_evaluation, write_reference
from tests.worlds.report_runs import start_run

RNG = np.random.default_rng(0)
A = {tag: (RNG.random((12, 4)) < 0.4).tolist() for tag in ("counting", "colors")}
B = {tag: (RNG.random((12, 4)) < (0.9 if tag == "colors" else 0.4)).tolist() for tag in A}


def changed(**making):
    """A card with other values in the making of the images."""
    card = copy.deepcopy(CARD)
    card["images"] |= making
    return card


@pytest.fixture
def runs(tmp_path):
    return evaluation(tmp_path / "a", A), evaluation(tmp_path / "b", B)


def test_changes_are_the_paired_statistics_of_their_task(runs):
    found = compare(*runs, 3, num_resamples=200)
    counting, colors, overall = found.changes
    assert [change.task for change in found.changes] == ["counting", "colors", OVERALL]
    a, b = np.array(A["colors"]), np.array(B["colors"])
    steps = b.sum(axis=1) - a.sum(axis=1)
    values = [float(v) for v in b.ravel()], [float(v) for v in a.ravel()]
    prompts = np.repeat(np.arange(12), 4).tolist()
    assert colors.difference == paired_bootstrap(*values, prompts, 3 + 1, num_resamples=200)
    assert (colors.only_a, colors.only_b) == ((a & ~b).sum(), (b & ~a).sum())
    assert (colors.worse, colors.better) == ((steps < 0).sum(), (steps > 0).sum())
    assert colors.p == pytest.approx(2 * sign_flip_test(steps.tolist()))  # Holm: two tasks, this one first
    assert colors.result == "better" and counting.result == "same"
    assert overall.difference.estimate == pytest.approx((counting.difference.estimate + colors.difference.estimate) / 2)
    assert overall.detectable < colors.detectable < 1
    error = standard_error(steps.tolist(), [4] * 12)  # and it is corrected for the same number
    assert colors.detectable == pytest.approx(detectable(error, 11, step=1 / 48, level=1 - 0.05 / 2))


def test_two_prompts_can_show_nothing_and_no_difference_beyond_100_points_is_promised(tmp_path):
    a, b = {"colors": A["colors"][:2]}, {"colors": [row[::-1] for row in A["colors"][:2]]}
    found = compare(evaluation(tmp_path / "a", a), evaluation(tmp_path / "b", b), 0, num_resamples=200)
    assert [change.detectable for change in found.changes] == [None, None]
    text = markdown(found, ("a", "b"), ())
    assert "b scores the same as a (95 % interval" in text and "these prompts no difference is found in 80 %" in text
    assert text.count("| not significant | none |") == 2
    assert forest_svg(found.changes, "b minus a").count("detectable none") == 2


def test_the_other_way_round_gives_the_opposite(runs):
    one, other = compare(*runs, 0, num_resamples=400), compare(*runs[::-1], 0, num_resamples=400)
    for ours, theirs in zip(one.changes, other.changes):
        assert ours.difference.estimate == pytest.approx(-theirs.difference.estimate)
        assert (ours.only_a, ours.better) == (theirs.only_b, theirs.worse)
        assert ours.p == pytest.approx(theirs.p, abs=0.02)


def test_a_run_does_not_differ_from_itself(runs):
    found = compare(runs[0], runs[0], 0, num_resamples=200)
    assert found.flips == () and found.unpaired == (0, 0)
    for change in found.changes:
        assert change.difference.estimate == 0 and change.difference.low < 0 < change.difference.high
        assert change.p == change.mcnemar == 1
    assert "No verdict differs." in markdown(found, ("a", "b"), [])


def test_flips_name_prompts_and_images_greatest_first(tmp_path):
    a = evaluation(tmp_path / "a", {"colors": [[True, True], [False, True], [True, True]]})
    b = evaluation(tmp_path / "b", {"colors": [[True, True], [True, True], [False, False]]})
    found = compare(a, b, 0, num_resamples=100)
    assert [(flip.prompt_index, flip.a, flip.b) for flip in found.flips] == [(2, 2, 0), (1, 1, 2)]
    plain = as_json(found, ("a", "b"), [])
    assert plain["flips"][1]["turned"] == [
        {"sample": 0, "a": False, "b": True, "reason_a": "expected thing1>=1, found 0", "reason_b": ""}
    ]
    assert json.loads(json.dumps(plain)) == plain
    text = markdown(found, ("a", "b"), [], num_flips=1)
    assert "1 prompts got better, 1 worse" in text and "2 a photo of colors 2" in text and "thing1" not in text


def test_nearness_to_thresholds_is_counted_where_rows_tell(tmp_path):
    rows = verdict_rows(A, distance=None)
    for row, distance in zip(rows, (0.004, 0.005, 0.006)):
        row["distance"] = distance
    a = read_evaluation(write_evaluation(tmp_path / "a", rows))
    b = evaluation(tmp_path / "b", B)
    found = compare(a, b, 0, num_resamples=100)
    assert found.near[0].images == 2 and found.near[0].share.estimate == pytest.approx(2 / 96)
    assert found.near[1] is None and found.near_flips is None
    assert "no distances" in markdown(found, ("a", "b"), [])


def test_images_are_paired_by_prompt_and_sample_wherever_they_stand(tmp_path):
    a = evaluation(tmp_path / "a", {"colors": [[True, False], [False, False]]})
    rows = verdict_rows({"colors": [[True, False], [False, False]]})[1:]  # the first image is missing
    for row in rows:
        row["prompt_index"] += 7
    b = read_evaluation(write_evaluation(tmp_path / "b", rows))
    pairs, unpaired = pair_up(a, b)
    assert [(x.sample, x.correct) for x, _ in pairs] == [(y.sample, y.correct) for _, y in pairs]
    assert len(pairs) == 3 and unpaired == (1, 0)
    assert coverage(a, b) == ("4 images of 2 prompts", "3 images of 2 prompts, 3 in both")
    assert coverage(a, a) == ("", "")
    other = evaluation(tmp_path / "c", {"counting": [[True]]})
    with pytest.raises(ValueError, match="no image of the same prompt"):
        pair_up(a, other)


def test_equal_prompts_in_several_folders_are_one_prompt(tmp_path):
    rows = verdict_rows({"colors": [[True], [False], [True]]})
    rows[1] |= {"prompt": rows[0]["prompt"], "metadata": rows[0]["metadata"]}
    a = read_evaluation(write_evaluation(tmp_path / "a", rows))
    found = compare(a, a, 0, num_resamples=100)
    assert (found.changes[0].images, found.changes[0].prompts) == (3, 2)


def test_genevals_own_result_file_is_read_too(tmp_path):
    rows = verdict_rows(A)
    ours = read_evaluation(write_evaluation(tmp_path / "a", rows, None))
    theirs = read_evaluation(write_reference(tmp_path / "results.jsonl", rows))
    assert theirs.card is None and list(theirs.images) == list(ours.images)


@pytest.mark.parametrize("line", ["{}", "nonsense", '{"filename": "x.png", "metadata": "{}"}'])
def test_a_broken_result_file_is_named_with_its_line(tmp_path, line):
    path = write_reference(tmp_path / "results.jsonl", verdict_rows({"colors": [[True]]}))
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(ValueError, match=r"results.jsonl:2: not a row"):
        read_evaluation(path)


def test_the_finding_says_p_as_a_sentence_does(tmp_path):
    a = evaluation(tmp_path / "a", A)
    overall = compare(a, a, 0, num_resamples=100).changes[-1]
    for p, told in ((0.0002, "significant (p < 0.001)."), (0.02, "significant (p = 0.020).")):
        assert sentence(replace(overall, p=p), ("a", "b")).endswith(told)
    assert "not significant (p = 1.000)" in sentence(overall, ("a", "b"))


def test_what_is_no_finished_evaluation_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="neither a run"):
        check_evaluation(tmp_path / "nothing")
    start_run(tmp_path / "g", "generate", {})
    with pytest.raises(ValueError, match="is a run of generate"):
        check_evaluation(tmp_path / "g")
    with pytest.raises(ValueError, match="unfinished, 23 units are left"):
        check_evaluation(write_evaluation(tmp_path / "u", verdict_rows(A), limit=1))
    run = write_evaluation(tmp_path / "c", verdict_rows(A))
    (run / "card.json").write_text("[")
    with pytest.raises(ValueError, match="damaged: not a card"):
        read_evaluation(run)


def test_conditions_are_named_as_allow_names_them():
    found = conditions(CARD)
    assert found["guidance"] == 2.0 and found["options.threshold"] == 0.3 and found["rewritten"] is False
    assert "sha256" not in found and not any(name.startswith("code") for name in found)


def test_models_and_strategies_may_differ_guidance_may_not():
    subject = changed(strategy="parm", weights={"model.showo": "00" * 32})
    found = differing(CARD, subject)
    assert [str(one) for one in found] == ["strategy (none / parm)", "weights.model.showo (efefefef / 00000000)"]
    refuse(found, [], ("a", "b"), names_of(CARD, subject))
    corrected = changed(search={"steps": 4}, judge={"prompts": "short"}, weights={"size": "s"})
    refuse(differing(CARD, corrected), [], ("a", "b"), names_of(CARD, corrected))
    other = changed(guidance=5.0, rewritten=True)
    with pytest.raises(ValueError) as refused:
        refuse(differing(CARD, other), [], ("a", "b"), names_of(CARD, other))
    assert str(refused.value) == (
        "a and b differ in rewritten (False / True), guidance (2.0 / 5.0); "
        "to compare anyway: allow=[rewritten,guidance]"
    )


def test_all_allows_the_making_but_not_the_judging():
    other = changed(steps=50, size=[[512, 512]])
    other["options"] = {"threshold": 0.25, "counting_threshold": 0.9}
    found, names = differing(CARD, other), names_of(CARD, other)
    with pytest.raises(ValueError, match=r"options\.threshold \(0\.3 / 0\.25\); .*allow=\[all,options\.threshold"):
        refuse(found, ["all"], ("a", "b"), names)
    for allow in (["all", "options.threshold"], ["all", "options"], ["steps", "size", "options"]):
        refuse(found, allow, ("a", "b"), names)


def test_a_run_that_does_not_say_is_refused_and_all_is_not_enough():
    (one,) = differing(CARD, None)
    with pytest.raises(ValueError, match=r"\(told / no card\)"):
        refuse([one], ["all"], ("a", "b"), names_of(CARD, None))
    refuse([one], ["card"], ("a", "b"), names_of(CARD, None))


def test_images_of_unknown_making_are_refused_as_a_missing_card_is():
    unknown = copy.deepcopy(CARD)
    unknown["images"] = {"prompts": "ab" * 32, "size": [[64, 64]], "source": "unknown"}
    for pair, shown in (((CARD, unknown), "told / not known"), ((unknown, unknown), "not known / not known")):
        found, names = differing(*pair), names_of(*pair)
        for allow in ([], ["all"], ["guidance", "images"]):
            with pytest.raises(ValueError) as refused:
                refuse(found, allow, ("a", "b"), names_of(CARD))
            assert f"tell how their images were made ({shown}); to compare anyway: allow=[" in str(refused.value)
            assert "\n" not in str(refused.value)
        refuse(found, ["card"], ("a", "b"), names)
    unknown["images"]["size"], unknown["options"] = [[512, 512]], {"threshold": 0.5, "counting_threshold": 0.9}
    with pytest.raises(ValueError, match=r"options\.threshold \(0\.3 / 0\.5\), size \("):
        refuse(differing(CARD, unknown), ["card"], ("a", "b"), names_of(CARD, unknown))


def test_an_option_that_one_strategy_lacks_is_none_and_a_condition_that_one_run_hides_unknown():
    other = copy.deepcopy(CARD)
    other["images"] |= {"search": {"clarity": "stride"}}
    del other["images"]["guidance"]
    shown = {one.name: (one.a, one.b) for one in differing(CARD, other)}
    assert shown == {"guidance": ("2.0", "unknown"), "search.clarity": ("none", "stride")}


def test_a_misspelt_condition_is_refused():
    with pytest.raises(ValueError, match=r"allow: .*'guidence'; .*'guidance'"):
        refuse([Differing(COVERAGE, "", "", "making")], ["guidence"], ("a", "b"), names_of(CARD))
