"""A judge of images, CLIP or a LLaVA, as a judge of answers."""

from pathlib import Path

import numpy as np
import pytest

from ckpts.resolve import resolve
from genloop.rewards.responses.scored import ResponseScores
from genloop.rewards.responses.settings import ResponseJudgeSettings
from genloop.shapes.render import render
from genloop.shapes.response_pairs import draw_pair
from tests.worlds.tiny_clip import write_transformers_folder


def load(judge: str, **options: str) -> ResponseScores:
    settings = ResponseJudgeSettings.model_validate({"kind": "scored", "options": {"judge": judge, **options}})
    settings.check(resolve)
    return settings.maker.load(settings.options, resolve, "cpu")


SHIPPED = {"kind": "llava", "options": {"checkpoint": "shapes/judge", "probability": "two_way"}}


def test_the_judge_that_ships_tells_what_a_picture_shows_from_what_it_does_not() -> None:
    pairs = [draw_pair(3, number) for number in range(0, 42, 6)]  # single objects
    images = list(render([scene for _, scene in pairs]))
    answers = [(str(row["first"]), str(row["second"])) for row, _ in pairs]
    found = load(SHIPPED, prompt="a photo of {response}").scores([""] * len(pairs), answers, images)
    right = [scores[row["better"]] > scores[1 - row["better"]] for scores, (row, _) in zip(found, pairs)]
    assert sum(right) >= 6


def test_a_question_of_any_wording_is_asked_about_each_answer() -> None:
    judge = load(SHIPPED, question="a photo of {response} : done ?")
    image = np.zeros((24, 24, 3), dtype=np.uint8)
    (one,) = judge.scores(["circle"], [["a red circle", "a red circle"]], [image])
    assert one[0] == one[1] and 0 <= one[0] <= 1


def test_a_judge_that_needs_metadata_is_refused_also_inside_of_another() -> None:
    members = [{"kind": "clip_score", "options": {"checkpoint": "x"}}, {"kind": "shapes_oracle"}]
    with pytest.raises(ValueError, match="metadata"):
        load({"kind": "ensemble", "options": {"members": members}})


def test_clip_scores_answers_by_likeness(tmp_path: Path) -> None:
    options = {"checkpoint": str(write_transformers_folder(tmp_path / "clip")), "backend": "transformers"}
    judge = load({"kind": "clip_score", "options": options})
    image = np.full((20, 30, 3), 80, dtype=np.uint8)
    (scores,) = judge.scores(["q"], [["a red circle", "a blue square"]], [image])
    assert all(0 <= score <= 1 for score in scores)


def test_an_answer_that_holds_braces_is_filled_in_once() -> None:
    class Echo:
        def p_yes(self, question, prompts, images):
            import torch

            assert [prompt.text for prompt in prompts] == ["q {response}: {query}", "q {response}: b"]
            return torch.tensor([0.5, 0.25])

    settings = ResponseJudgeSettings.model_validate(
        {"kind": "scored", "options": {"judge": SHIPPED, "prompt": "{query}: {response}"}}
    )
    found = ResponseScores(Echo(), settings.options).scores(
        ["q {response}"], [["{query}", "b"]], [np.zeros((4, 4, 3), dtype=np.uint8)]
    )
    assert found == [[0.5, 0.25]]


def test_a_wording_without_the_answer_is_refused() -> None:
    with pytest.raises(ValueError, match="question"):
        load(SHIPPED, question="Is it so?")
