"""Pairs about drawn scenes: the better answer is true of the scene and the other is not; places say nothing."""

from collections import Counter
from pathlib import Path

from genloop.data.prompts import plural
from genloop.data.responses.columns import ColumnNames
from genloop.data.responses.read import ResponseData, open_pairs
from genloop.records import TAGS
from genloop.shapes.response_pairs import draw_pair, write_response_pairs
from genloop.shapes.scenes import relation_of

PAIRS = [draw_pair(1, number) for number in range(300)]


def test_only_the_better_answer_names_what_is_there() -> None:
    for row, scene in PAIRS:
        answers = [str(row[key]) for key in ("first", "second")]
        right, wrong = answers if row["better"] == 0 else answers[::-1]
        assert right != wrong and is_true(right, scene) and not is_true(wrong, scene), (right, wrong, scene)


def is_true(text: str, scene) -> bool:
    """Whether every shape, colour, number and relation of an answer is that of the scene, by its words."""
    words = {"two": 2, "three": 3, "four": 4}
    first = text.split()[0]
    if first in words:
        return len(scene) == words[first] and text.split()[1] == plural(scene[0].shape)
    for relation in ("left of", "right of", "above", "below"):
        if f" {relation} " in text:
            subject, target = (part.split()[-1] for part in text.split(f" {relation} "))
            places = {thing.shape: (thing.row, thing.column) for thing in scene}
            return relation_of(places[subject], places[target]) == relation
    named = [part.split()[1:] for part in text.split(" and ")]
    there = [[thing.color, thing.shape][-len(words) :] for words, thing in zip(named, scene)]
    return len(named) == len(scene) and sorted(there) == sorted(named)


def test_every_task_has_as_many_pairs_and_the_better_answer_is_first_as_often_as_second() -> None:
    assert Counter(row["group"] for row, _ in PAIRS) == dict.fromkeys(TAGS, 50)
    assert 120 < sum(row["better"] == 0 for row, _ in PAIRS) < 180


def test_what_ships_is_what_the_code_draws(tmp_path: Path) -> None:
    drawn, shipped = write_response_pairs(tmp_path, range(24)), Path("configs/data/responses/pairs.jsonl")
    assert drawn.read_bytes() == shipped.read_bytes()
    for file in tmp_path.glob("*.png"):
        assert file.read_bytes() == (shipped.parent / file.name).read_bytes()


def test_they_are_read_as_pairs(tmp_path: Path) -> None:
    names = ColumnNames(first="first", second="second", better="better", group="group", id="id")
    path = write_response_pairs(tmp_path, range(6), name="train")
    pairs = open_pairs(ResponseData(path=path, layout="columns", columns=names))
    assert [pair.best for pair in pairs] == [draw_pair(0, number, "train")[0]["better"] for number in range(6)]
    image = pairs.image(0)
    assert image is not None and image.shape == (24, 24, 3)
