"""Which images make pairs, and which pairs are kept."""

import numpy as np
import pytest

from genloop.data.pairs.rules import Criterion, Scored, pick
from genloop.data.pairs.selection import FoundPair, select, split_pairs
from tests.worlds.pairs import a_pair


def image(name: str, score: float, is_right: bool | None = None, codes: int | None = None) -> Scored:
    return Scored(name, np.full(4, ord(name) if codes is None else codes), score, is_right)


IMAGES = [image("a", 0.1, True), image("b", 0.9, True), image("c", 0.5, False), image("d", 0.8, False)]


def names(rule: str, signal: str, margin: float, most: int = 9) -> list[str]:
    pairs = pick(IMAGES, Criterion(signal, margin), rule, most=most, key="0")
    return [f"{better.name}{worse.name}" for better, worse in pairs]


@pytest.mark.parametrize(
    ("rule", "signal", "margin", "expected"),
    [
        ("best_worst", "judge", 0.0, ["ba", "dc"]),
        ("best_worst", "judge", 0.5, ["ba"]),
        ("margin", "judge", 0.35, ["ba", "da", "bc", "ca"]),
        ("margin", "both", 0.0, ["bc", "bd"]),
        ("margin", "both", 0.2, ["bc"]),
        ("margin", "judge", 0.8, []),
    ],
)
def test_a_rule_pairs_what_is_preferred(rule, signal, margin, expected):
    assert names(rule, signal, margin) == expected
    assert names(rule, signal, margin, most=1) == expected[:1]


def test_best_and_worst_follow_what_both_signals_say():
    """The best right image with the worst wrong one, though the worst of all is right and the second best is wrong."""
    assert names("best_worst", "both", 0.0) == ["bc"]


def test_equal_images_make_no_pair_and_equal_scores_are_ordered_by_the_key_alone():
    alike = [image("a", 1.0, True, 5), image("b", 0.0, False, 5)]
    assert not pick(alike, Criterion("judge", 0.0), "margin", most=9, key="0")
    many = [image(name, float(name < "f"), name < "f") for name in "abcdefghij"]
    orders = {
        key: [a.name + b.name for a, b in pick(list(turned), Criterion("verdict", 0.0), "best_worst", most=3, key=key)]
        for key in ("0", "1")
        for turned in (many, many[::-1])
    }
    assert orders["0"] != orders["1"]
    pairs = [
        [a.name + b.name for a, b in pick(turned, Criterion("verdict", 0.0), "best_worst", most=3, key="0")]
        for turned in (many, many[::-1])
    ]
    assert pairs[0] == pairs[1] and len(pairs[0]) == 3


def found(*pairs: tuple[int, str]) -> list[FoundPair]:
    return [FoundPair.of(a_pair(number, tag=tag)) for number, tag in pairs]


def test_the_first_of_equal_pairs_is_kept():
    pairs = [FoundPair.of(a_pair(0)), FoundPair.of(a_pair(0, key="again")), FoundPair.of(a_pair(2))]
    selection = select(pairs, 0, is_balanced=False)
    assert [pair.key for pair in selection.kept] == ["00000", "00002"]
    assert (selection.duplicates, selection.balanced_out) == (1, 0)
    other_prompt = FoundPair.of(a_pair(0, key="other", prompt="another text"))
    assert len(select([*pairs, other_prompt], 0, is_balanced=False).kept) == 3


def test_balance_leaves_as_many_of_each_task_as_the_smallest_has_in_their_order():
    pairs = found(*((i, "colors") for i in range(6)), *((i, "counting") for i in range(6, 8)))
    selection = select(pairs, 0, is_balanced=True)
    assert [pair.tag for pair in selection.kept] == ["colors"] * 2 + ["counting"] * 2
    assert selection.balanced_out == 4
    assert [pair.key for pair in selection.kept] == sorted(pair.key for pair in selection.kept)
    keys = {tuple(pair.key for pair in select(pairs, seed, is_balanced=True).kept) for seed in range(8)}
    assert len(keys) > 1


def test_a_sentence_is_on_one_side():
    pairs = [FoundPair.of(a_pair(i, key=f"{i}-{k}")) for i in range(40) for k in range(2)]
    sides = split_pairs(pairs, 0, 0.5)
    texts = [{pair.text for pair in side} for side in sides.values()]
    assert all(texts) and not texts[0] & texts[1] and sum(map(len, sides.values())) == 80
