"""The numbers of judged pairs against those that can be counted by hand."""

from typing import Any

import pytest

from genloop.runs.judged import JudgedPair
from genloop.stats.judges.pairs import CONTROL, summarize


def row(number: int, p: float | None, *, group: str = "a", best: int = 0, judge: str = "x", **more: Any) -> JudgedPair:
    told = {"judge": judge, "number": number, "id": str(number), "cluster": number, "group": group, "source": group}
    told |= {"best": best, "num_chars": [5, 9], "likelihood": {"p": p}}
    return JudgedPair.model_validate(told | more, strict=False)


def trials(said: str) -> dict[str, Any]:
    """One letter a trial: + for the better answer, - for the other, ? for none; the better answer is shown first."""
    read = {"+": 1, "-": 2, "?": None}
    told = {"+": True, "-": False, "?": None}
    return {
        "likelihood": None,
        "generated": [
            {"order": "as given", "text": "", "read": {"strict": read[c]}, "agrees": {"strict": told[c]}} for c in said
        ],
    }


def test_macro_is_the_mean_of_groups_overall_that_of_pairs_and_ties_count_half() -> None:
    rows = [row(0, 0.9), row(1, 0.5), row(2, 0.2), row(3, None), row(4, 0.9, group="b")]
    one = summarize(rows, "x / likelihood", 0)["arms"]["x / likelihood"]
    assert one["groups"]["a"]["estimate"] == pytest.approx(1.5 / 4) and one["groups"]["b"]["estimate"] == 1
    assert one["macro"]["estimate"] == pytest.approx((1.5 / 4 + 1) / 2)
    assert one["overall"]["estimate"] == pytest.approx(2.5 / 5)
    assert one["overall over chance"]["estimate"] == pytest.approx(0)
    assert (one["answered"]["estimate"], one["ties"]["estimate"]) == (0.8, 0.25)
    for interval in (one["macro"], one["overall"], one["answered"]):
        assert interval["low"] < interval["estimate"] < interval["high"] or interval["estimate"] == 1


def test_official_accuracy_leaves_undecided_pairs_out_and_strict_accuracy_counts_them_as_wrong() -> None:
    said = ["++-", "+??", "--+", "???", "+-?"]
    rows = [row(number, None, **trials(one)) for number, one in enumerate(said)]
    found = summarize(rows, "x / generated", 0)
    read = found["written"]["x"]["strict"]
    assert read["read"] == pytest.approx(
        {"n": 15, "estimate": 9 / 15, "low": read["read"]["low"], "high": read["read"]["high"]}
    )
    assert read["all"]["overall"]["estimate"] == pytest.approx(1 / 5)
    assert (read["decided"]["overall"]["estimate"], read["decided"]["overall"]["n"]) == (0.5, 2)
    assert found["arms"]["x / generated"]["overall"]["estimate"] == pytest.approx(1 / 5)


def test_a_judge_of_length_has_a_length_bias_and_the_control_is_that_judge() -> None:
    rows = [row(number, 0.1, best=number % 2) for number in range(20)]  # the second answer is always longer
    found = summarize(rows, "x / likelihood", 0)
    one = found["arms"]["x / likelihood"]
    assert one["took the longer answer"]["estimate"] == 1 and one["longer answer is better"]["estimate"] == 0.5
    assert one["length bias"]["estimate"] == 0.5 and one["length bias"]["low"] > 0
    assert found["arms"][CONTROL]["overall"] == one["overall"]
    assert found["over base"][CONTROL]["overall"]["estimate"] == 0 and found["over base"][CONTROL]["p"] == 1


def test_bias_of_position_and_consistency_come_from_both_orders() -> None:
    told = [(0.9, 0.9), (0.8, 0.3), (0.7, 0.6), (0.2, 0.9)]  # P("1") as given, and swapped
    rows = [
        row(i, None, likelihood=None, verdict={"p": (a + 1 - b) / 2, "p_one": [a, b]}) for i, (a, b) in enumerate(told)
    ]
    one = summarize(rows, "x / verdict", 0)["arms"]["x / verdict"]
    assert one["took answer 1"]["estimate"] == pytest.approx(6 / 8)
    assert one["same in both orders"]["estimate"] == pytest.approx(2 / 4)


def test_differences_are_paired_and_a_sure_judge_that_is_wrong_is_badly_calibrated() -> None:
    rows = [row(n, 0.99 if n % 4 else 0.01, judge="good") for n in range(24)]
    rows += [row(n, 0.01, judge="bad") for n in range(24)]
    found = summarize(rows, "good / likelihood", 0)
    difference = found["over base"]["bad / likelihood"]
    assert difference["overall"]["estimate"] == pytest.approx(-0.75) and difference["overall"]["high"] < 0
    assert difference["p corrected"] < 0.01
    assert found["arms"]["bad / likelihood"]["calibration error"]["estimate"] == pytest.approx(0.99)
    assert found["arms"]["good / likelihood"]["calibration error"]["estimate"] == pytest.approx(0.24)
