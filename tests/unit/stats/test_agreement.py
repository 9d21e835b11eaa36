"""Agreement with people: textbook numbers, votes from every format, evaluators compared in pairs."""

import numpy as np
import pytest

from genloop.stats.agreement.measure import ALL, AnnotatedImage, agreement, cohen_kappa, label
from genloop.stats.agreement.tables import as_json, markdown
from genloop.stats.agreement.votes import Votes, check_votes, read_votes, says_yes
from tests.worlds.annotations import published_row, write_csv

METADATA = {
    "two_object": {"tag": "two_object", "include": [{"class": "dog", "count": 1}, {"class": "tie", "count": 1}]},
    "counting": {"tag": "counting", "include": [{"class": "dog", "count": 3}]},
    "colors": {"tag": "colors", "include": [{"class": "dog", "count": 1, "color": "red"}]},
    "position": {
        "tag": "position",
        "include": [{"class": "dog", "count": 1}, {"class": "tie", "count": 1, "position": ["above", 0]}],
    },
}
PROMPTS = {i: (f"prompt {i}", data | {"prompt": f"prompt {i}"}) for i, data in enumerate(METADATA.values())}


def images(cells, tag="colors", per_prompt=1):
    """(both yes, only the evaluator, only people, both no) -> so many images."""
    verdicts = [(True, True), (True, False), (False, True), (False, False)]
    flat = [pair for pair, count in zip(verdicts, cells) for _ in range(count)]
    return [
        AnnotatedImage(f"{tag} {i // per_prompt}", tag, Votes(5 if human else 0, 5), machine)
        for i, (machine, human) in enumerate(flat)
    ]


def test_numbers_of_a_table_are_the_textbooks():
    found = agreement(images((20, 5, 10, 15)), 0, num_resamples=500)
    (task, everything) = found.tasks
    assert task.cells == (20, 5, 10, 15) and everything.task == ALL
    assert task.agreement.estimate == pytest.approx(0.7)
    assert task.kappa.estimate == pytest.approx(0.4)  # chance agrees in half of all cases
    assert task.precision.estimate == pytest.approx(20 / 25)
    assert task.recall.estimate == pytest.approx(20 / 30)
    assert (task.human.estimate, task.machine.estimate) == pytest.approx((0.6, 0.5))
    for interval in (task.agreement, task.kappa, task.precision, task.recall):
        assert interval.low < interval.estimate < interval.high
    assert found == agreement(images((20, 5, 10, 15)), 0, num_resamples=500)


@pytest.mark.parametrize(
    "metadata",
    [{"tag": "colors"}, {"tag": "colors", "include": "dog"}, {"tag": "colors", "include": [{"class": "dog"}]}],
)
def test_published_answers_about_images_without_metadata_are_refused_by_file_and_line(tmp_path, metadata):
    whole = METADATA["colors"] | {"prompt": "a"}
    path = write_csv(tmp_path / "answers.csv", [published_row(whole, 0, 0, "strict")])
    with pytest.raises(ValueError, match=r"answers\.csv:2: .*metadata"):
        read_votes([path], {0: ("a", metadata | {"prompt": "a"})}, "loose")


def test_kappa_without_anything_to_tell_apart_is_not_a_number():
    assert np.isnan(cohen_kappa(np.array([5, 0, 0, 0])))
    (task, _) = agreement(images((4, 0, 0, 0)), 0, num_resamples=100).tasks
    assert task.kappa is None and task.agreement.estimate == 1 and task.agreement.low < 1
    (task, _) = agreement(images((0, 0, 0, 4)), 0, num_resamples=100).tasks
    assert task.precision is None and task.recall is None


def test_no_number_of_prompts_makes_a_perfect_evaluator_certain():
    few, many = (agreement(images((n, 0, 0, n)), 0, num_resamples=500).tasks[0].kappa for n in (5, 100))
    assert few.estimate == many.estimate == few.high == many.high == 1
    assert 0 < few.low < many.low < 1
    alone = agreement(images((2, 0, 0, 2), per_prompt=4), 0, num_resamples=500).tasks[0].kappa
    assert alone.low < alone.estimate == 1


def test_two_evaluators_that_say_the_same_are_not_surely_equal():
    same = [AnnotatedImage(one.prompt, one.tag, one.votes, one.verdict, one.verdict) for one in images((20, 5, 5, 20))]
    kappa = agreement(same, 0, num_resamples=500).paired[-1].kappa
    assert kappa.low < kappa.estimate == 0 < kappa.high
    assert kappa.low == pytest.approx(-kappa.high, abs=0.03)


def test_differences_of_tasks_are_corrected_for_their_number():
    first = images((6, 2, 2, 6)) + images((6, 0, 6, 6), tag="counting")
    ours = [AnnotatedImage(one.prompt, one.tag, one.votes, one.verdict, one.human) for one in first]
    counting, colors, everything = agreement(ours, 0, num_resamples=100).paired
    assert (counting.task, colors.task, everything.task) == ("counting", "colors", ALL)
    assert counting.p == pytest.approx(2 * 2 / 2**6) and colors.p == pytest.approx(2 / 2**4)
    assert everything.p == pytest.approx(2 / 2**10)


def test_images_of_a_prompt_widen_the_interval():
    alone, together = (agreement(images((20, 4, 8, 16), per_prompt=n), 0, num_resamples=800).tasks[0] for n in (1, 4))
    assert together.kappa.high - together.kappa.low > 1.3 * (alone.kappa.high - alone.kappa.low)
    assert together.agreement.high - together.agreement.low > alone.agreement.high - alone.agreement.low


def test_agreement_is_shown_by_how_divided_people_were():
    found = agreement(
        [
            AnnotatedImage("a", "colors", Votes(5, 5), True),
            AnnotatedImage("b", "colors", Votes(1, 5), False),
            AnnotatedImage("c", "colors", Votes(3, 5), False),
            AnnotatedImage("d", "colors", Votes(2, 5), False),
        ],
        0,
        num_resamples=100,
    )
    assert [(m.majority, m.minority, m.images, m.agreement.estimate) for m in found.margins] == [
        (5, 0, 1, 1.0),
        (4, 1, 1, 1.0),
        (3, 2, 2, 0.5),
    ]
    assert found.person.estimate == pytest.approx((5 + 4 + 3 + 3) / 20)
    assert "| 3 : 2 | 2 | 50.0 %" in markdown(found, ["x"], {"rule": "loose"})


def test_two_evaluators_are_compared_in_pairs():
    first = images((20, 10, 10, 20), per_prompt=2)
    ours = [AnnotatedImage(one.prompt, one.tag, one.votes, one.verdict, one.human) for one in first]
    found = agreement(ours, 0, num_resamples=300)
    pair = found.paired[-1]
    assert (pair.only_first, pair.only_other) == (0, 20)
    assert pair.agreement.estimate == pytest.approx(20 / 60) and pair.agreement.low > 0
    assert pair.kappa.estimate == pytest.approx(1 - 1 / 3) and pair.kappa.low > 0
    assert pair.mcnemar < pair.p < 0.01
    assert as_json(found, ["x", "y"], {})["paired"][-1]["agreement"]["estimate"] == pair.agreement.estimate
    assert agreement(first, 0, num_resamples=100).paired == ()


def test_ties_and_images_without_verdicts_are_counted_not_guessed():
    votes = {(0, 0): Votes(1, 2), (0, 1): Votes(2, 2), (7, 0): Votes(2, 2)}
    verdicts = {(0, 0): ("p", "colors", True), (0, 1): ("p", "colors", True)}
    found, ties, missing = label(votes, verdicts)
    assert len(found) == 1 and (ties, missing) == (1, 1)
    with pytest.raises(ValueError, match="no image has both"):
        agreement([], 0)


@pytest.mark.parametrize("number", PROMPTS)
@pytest.mark.parametrize("rule", ["loose", "strict"])
def test_an_answer_is_a_yes_when_it_says_what_the_prompt_asks(number, rule):
    metadata = PROMPTS[number][1]
    said = {kind: says_yes(published_row(metadata, 0, 0, kind), metadata, rule) for kind in ("strict", "loose", "no")}
    assert said["strict"] and not said["no"]
    assert said["loose"] == (rule == "loose" and metadata["tag"] != "counting")


@pytest.mark.parametrize(
    ("number", "change"),
    [
        (2, {"Answer.task-color-0": "orange|gray"}),
        (3, {"Answer.task-position-y": "below"}),
        (3, {"Answer.task-position-y": None}),
        (0, {"Answer.task-count-1": ""}),
        (0, {"Answer.task-count-1": "many"}),
        (0, {"Answer.task-count-1": "-inf"}),
    ],
)
def test_other_colours_places_and_blanks_are_a_no(number, change):
    metadata = PROMPTS[number][1]
    assert not says_yes(published_row(metadata, 0, 0, "strict") | change, metadata, "loose")


def test_torn_rows_and_prompts_that_were_not_evaluated_are_counted(tmp_path):
    rows = [published_row(PROMPTS[2][1], 2, 0, kind) for kind in ("strict", "strict", "no")]
    rows += [rows[0] | {"Input.prompt_id": "neither_y"}, rows[0] | {"Input.prompt_id": "99"}]
    found = read_votes([write_csv(tmp_path / "a.csv", rows)], PROMPTS, "loose")
    assert found.votes == {(2, 0): Votes(2, 3)}
    assert (found.malformed, found.elsewhere) == (1, 1)


def test_sheets_of_several_people_add_up(tmp_path):
    row = {"image": "x.png", "prompt_index": "1", "sample": "0", "prompt": "prompt 1", "question": "?"}
    answers = ["yes", " No ", "Y", "", "unsure"]
    paths = [write_csv(tmp_path / f"{i}.csv", [row | {"answer": answer}]) for i, answer in enumerate(answers)]
    found = read_votes(paths, PROMPTS, "loose")
    assert found.votes == {(1, 0): Votes(2, 3)} and found.unanswered == 2


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [{"answer": "maybe", "prompt_index": "1", "sample": "0", "prompt": "prompt 1"}],
            r"a\.csv:2: answer",
        ),
        ([{"answer": "yes", "prompt_index": "1", "sample": "0", "prompt": "a cat"}], "other prompts"),
        (
            [published_row(PROMPTS[1][1], 1, 0, "no", model) for model in ("clip", "sdv2")],
            r"a\.csv:3: .*/sdv2, .*a\.csv:2 .*/clip",
        ),
        ([{"x": "y"}], r"columns Input\.prompt_id"),
    ],
)
def test_bad_files_are_refused_with_their_line(tmp_path, rows, message):
    path = write_csv(tmp_path / "a.csv", rows)
    with pytest.raises(ValueError, match=message):
        read_votes([path], PROMPTS, "loose")
    with pytest.raises(FileNotFoundError, match="no such file"):
        check_votes(tmp_path / "nothing.csv")
