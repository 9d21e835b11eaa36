"""Counts and rates of a refinement corpus, each with its n and interval."""

import pytest

from genloop.report.irg.summary import rate, summarize


def row(kind="single", injected=(), found=(), done=(), begins_wrong=False):
    about = {"split": "train", "intent": "neutral", "rounds": 2, "end": "clean"}
    return {
        **about,
        "kind": kind,
        "injected": [list(one) for one in injected],
        "found": list(found),
        "done": [list(one) for one in done],
        "begins_wrong": begins_wrong,
    }


ALL = [
    row("clean"),
    row("clean", found=["blur"]),
    row(injected=[("noise", 0)], found=["noise"], done=[(["denoise"], True)]),
    row(injected=[("noise", 2)], done=[]),
    row(injected=[("blur", 1)], found=["blur"], done=[(["denoise"], False), (["unsharp"], True)], begins_wrong=True),
    row("content", injected=[("wrong_count", 2)], found=["wrong_count"], done=[(["regenerate"], True)]),
    {"item": 6, "refused": "a.png: broken"},
    {"item": 7, "refused": "b.png: broken"},
]
ROWS = [{"scene": f"scene {place}", **one} for place, one in enumerate(ALL)]


def test_what_is_counted_adds_up():
    found = summarize(ROWS)
    assert found["traces"] == 6 and found["refused"] == {"broken": 2}
    assert found["kind"] == {"clean": 2, "content": 1, "single": 3}


@pytest.mark.parametrize(
    ("place", "k", "n"),
    [
        (("false_alarms",), 1, 2),
        (("found", "noise", "0"), 1, 1),
        (("found", "noise", "2"), 0, 1),
        (("found", "wrong_count", "all"), 1, 1),
        (("actions", "denoise"), 1, 1),  # the wrong first action is none of the rules
        (("actions", "unsharp"), 1, 1),
        (("wrong_taken_back",), 1, 1),
        (("taken_back",), 1, 4),
    ],
)
def test_rates_are_of_the_right_rounds(place, k, n):
    found = summarize(ROWS)
    for key in place:
        found = found[key]
    assert (found["n"], found["estimate"]) == (n, k / n) and found["low"] <= found["estimate"] <= found["high"]


def test_a_rate_of_nothing_is_none():
    assert rate([]) is None
