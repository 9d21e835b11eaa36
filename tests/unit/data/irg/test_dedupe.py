"""Duplicates, near-duplicates and leaks between splits are counted; splits follow from hashes."""

import pytest

from genloop.data.irg.dedupe import THRESHOLD, fingerprint, leakage, normalised
from genloop.data.irg.split import scene_sha, split_of
from tests.worlds.traces import trace


def fingerprints(*places, **changes):
    """One for each (kind, seed, split)."""
    made = [trace(*place) for place in places]
    rows = [fingerprint(one.record, one.images["0.png"]) for one in made]
    return [row | {"key": f"{row['key']}-{number}"} | changes for number, row in enumerate(rows)]


def test_traces_of_other_texts_are_no_duplicates():
    found = leakage(fingerprints(("dark", 0, "train"), ("clean", 1, "train"), ("content", 2, "train")))
    assert found.duplicates == []
    assert found.summary["traces"] == {"train": 3, "val": 0, "test": 0}
    assert found.summary["templates_in_two_splits"] == found.summary["scenes_in_two_splits"] == 0


def test_the_same_text_is_a_duplicate_and_the_one_in_test_stays():
    first = fingerprints(("dark", 0, "test"))
    again = [{**first[0], "key": "again", "split": "train"}]
    found = leakage(again + first)
    assert found.summary["duplicates_across"] == 1 and found.summary["duplicates_within"] == 0
    assert [(row["key"], row["of"]) for row in found.duplicates] == [("again", first[0]["key"])]
    assert found.summary["scenes_in_two_splits"] == 1 and found.summary["alike_images_across"] == 1
    assert found.summary["templates_in_two_splits"] > 0  # those of test, in train


def test_a_text_with_one_word_more_is_a_near_duplicate():
    made = trace("undone", 0)
    longer = f"{made.record.final_prompt} again"
    other = made.record.model_copy(update={"id": "other", "final_prompt": longer})
    rows = [fingerprint(record, made.images["0.png"]) for record in (made.record, other)]
    found = leakage(rows)
    assert found.summary["near_duplicates_within"] == 1
    assert THRESHOLD <= found.duplicates[0]["similarity"] < 1


def test_the_order_of_fingerprints_changes_nothing():
    rows = fingerprints(*[(kind, seed, "train") for kind in ("dark", "clean", "content") for seed in range(4)])
    assert leakage(rows) == leakage(rows[::-1])


def test_a_fingerprint_is_the_same_every_time():
    assert fingerprints(("dark", 5, "val")) == fingerprints(("dark", 5, "val"))


@pytest.mark.parametrize(("text", "same"), [("A  Dog, 0.25.", "a dog 0.25"), ("ﬁne", "fine"), ("-0.5 !", "0.5")])
def test_a_text_is_normalised(text, same):
    assert normalised(text) == same


def test_splits_have_their_shares_and_hold_scenes_together():
    places = [split_of(f"{number}", 3, 0.1, 0.2) for number in range(2000)]
    shares = {split: places.count(split) / 2000 for split in ("train", "val", "test")}
    assert abs(shares["test"] - 0.2) < 0.04 and abs(shares["val"] - 0.1) < 0.03
    assert len({scene_sha(trace(kind, seed).record) for kind in ("dark", "clean") for seed in (0, 1)}) == 1


def test_photographs_are_told_apart_by_their_source():
    record = trace("dark").record.model_copy(update={"scene": None})
    other = trace("clean").record.model_copy(update={"scene": None})
    same = [one.model_copy(update={"provenance": {"source_sha256": "a"}}) for one in (record, other)]
    assert scene_sha(record) != scene_sha(other) and scene_sha(same[0]) == scene_sha(same[1])
