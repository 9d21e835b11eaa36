"""Soft-TIFA on a small file of our own: what a judge is asked, means by hand, what is refused."""

import json
import math

import numpy as np
import pytest
import torch

from geneval.geneval2 import SoftTifa, SoftTifaOptions, SoftTifaScorer, read_atoms, soft_tifa_lines
from genloop.records import Prompt

ROWS = [
    {
        "prompt": "two red squares",
        "atom_count": 3,
        "vqa_list": [["How many squares are there?", "two"], ["Are they red?", "Yes"], ["Are there squares?", "Yes"]],
        "skills": ["count", "attribute", "object"],
    },
    {
        "prompt": "a star",
        "atom_count": 1,
        "vqa_list": [["Is there a star?", "Yes"], ["How many stars are there?", "one"]],
        "skills": ["object", "count"],
    },
]


class Reader:
    """Answers with the brightness of the image over the length of question and answer; keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str | None]] = []

    def p_yes_to(self, texts, images):
        self.asked += [(text, None) for text in texts]
        return images.flatten(1).mean(1) / torch.tensor([len(text) for text in texts])

    def p_answer_to(self, texts, answers, images):
        self.asked += list(zip(texts, answers))
        lengths = [len(text) + len(answer) for text, answer in zip(texts, answers)]
        return torch.where(images.flatten(1).mean(1) == 0, torch.nan, images.flatten(1).mean(1) / torch.tensor(lengths))


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def picture(value: int, size: int = 4) -> np.ndarray:
    return np.full((size, size, 3), value, dtype=np.uint8)


def test_every_question_is_put_about_its_own_image(file):
    reader = Reader()
    scorer = SoftTifaScorer(reader, read_atoms(file), "{question} One word.")
    prompts = [Prompt(0, "two red squares"), Prompt(1, "a star"), Prompt(0, "two red squares")]
    found = scorer.scores(prompts, [picture(255), picture(51), picture(102, size=6)])
    assert [len(row) for row in found] == [3, 2, 3]

    def expected(row: int, place: int, brightness: float) -> float:
        question, answer = ROWS[row]["vqa_list"][place]
        length = len(f"{question} One word.") + (0 if answer == "Yes" else len(answer))
        return brightness / length

    for image, (row, brightness) in enumerate(((0, 1.0), (1, 0.2), (0, 0.4))):
        wanted = [expected(row, place, brightness) for place in range(len(found[image]))]
        assert found[image] == pytest.approx(wanted, rel=1e-5)
    assert ("How many stars are there? One word.", "one") in reader.asked
    assert ("Are they red? One word.", None) in reader.asked


def test_a_judge_gets_so_many_copies_of_images_at_a_time_and_no_more(file):
    sizes = []

    class Counting(Reader):
        def p_yes_to(self, texts, images):
            sizes.append((len(texts), len(images)))
            return super().p_yes_to(texts, images)

    prompts, pictures = [Prompt(0, "two red squares")] * 33, [picture(1 + value) for value in range(33)]
    found = SoftTifaScorer(Counting(), read_atoms(file), "{question}").scores(prompts, pictures)
    assert sizes == [(32, 32), (32, 32), (2, 2)]
    alone = [SoftTifaScorer(Reader(), read_atoms(file), "{question}").scores(prompts[:1], [one])[0] for one in pictures]
    assert found == alone


def test_an_unanswered_question_is_none(file):
    scorer = SoftTifaScorer(Reader(), read_atoms(file), "{question}")
    assert scorer.scores([Prompt(1, "a star")], [picture(0)]) == [[0.0, None]]


def rows_of(*shares: tuple[int, list[float | None]]) -> list[dict]:
    return [
        {"prompt": ROWS[index]["prompt"], "prompt_index": index, "scores": {"g": values}} for index, values in shares
    ]


def test_am_gm_skills_and_numbers_of_atoms_are_the_means_by_hand(file):
    rows = rows_of((0, [0.5, 1.0, 0.25]), (0, [1.0, 1.0, 1.0]), (1, [0.0, 1.0]), (1, [0.8, None]))
    lines = {line.name: line for line in soft_tifa_lines(read_atoms(file), "g", rows, seed=0)}
    assert lines["g AM"].value == pytest.approx((1.75 / 3 + 1 + 0.5) / 3)
    assert lines["g GM"].value == pytest.approx((math.pow(0.125, 1 / 3) + 1 + 0) / 3)
    assert lines["g AM count"].value == pytest.approx((0.5 + 1 + 1) / 3)
    assert lines["g AM object"].value == pytest.approx((0.25 + 1 + 0 + 0.8) / 4)
    assert lines["g GM 3 atoms"].value == pytest.approx((0.5 + 1) / 2)
    assert lines["g GM 1 atoms"].value == 0
    assert lines["g AM"].n == 3 and "1 images without a score" in lines["g AM"].note
    assert lines["g AM"].low <= lines["g AM"].value <= lines["g AM"].high
    assert list(lines)[:2] == ["g AM", "g GM"]


def test_intervals_take_prompts_as_clusters(file):
    same = soft_tifa_lines(read_atoms(file), "g", rows_of(*[(0, [0.5] * 3), (1, [1.0] * 2)]), seed=0)
    many = soft_tifa_lines(read_atoms(file), "g", rows_of(*[(0, [0.5] * 3), (1, [1.0] * 2)] * 50), seed=0)
    assert same[0][1:4] == many[0][1:4] == (0.75, 0.5, 1.0)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"vqa_list": None}, r"prompts\.jsonl:1: vqa_list .*None"),
        ({"vqa_list": [["Is it?"]]}, "vqa_list must"),
        ({"skills": ["count"]}, "skills .*3 questions"),
        ({"atom_count": "3"}, "atom_count .*found '3'"),
        ({"prompt": " "}, "prompt must"),
    ],
)
def test_rows_that_are_not_geneval_2_are_refused(tmp_path, change, line):
    path = tmp_path / "prompts.jsonl"
    path.write_text(json.dumps(ROWS[0] | change))
    with pytest.raises(ValueError, match=line):
        read_atoms(path)
    path.write_text(json.dumps({key: value for key, value in ROWS[0].items() if key != "skills"}))
    with pytest.raises(ValueError, match="skills is missing"):
        read_atoms(path)
    path.write_text("\n".join(json.dumps(row) for row in (ROWS[0], ROWS[0] | {"atom_count": 9})))
    with pytest.raises(ValueError, match=r"2: .*'two red squares' again"):
        read_atoms(path)


def test_images_of_other_prompts_are_refused(file):
    options = SoftTifaOptions(file=file)
    SoftTifa.check_prompts(options, [Prompt(0, "a star")])
    with pytest.raises(ValueError, match=r"no prompt 'a dog' \(and 1 more"):
        SoftTifa.check_prompts(options, [Prompt(0, "a dog"), Prompt(0, "a star"), Prompt(1, "a cat")])
    with pytest.raises(ValueError, match=r"does not mention \{question\}"):
        SoftTifaOptions(file=file, template="what?")
