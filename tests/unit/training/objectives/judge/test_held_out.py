"""Held-out answers are those that the judge gives when the suite asks it."""

import numpy as np
import pytest
import torch

from genloop.data.images import encode_png
from genloop.data.judge.conversations import Conversation
from genloop.distributed import World
from genloop.rewards.llava.judge import LlavaJudge
from genloop.rewards.questions import Questions
from genloop.training.objectives.judge.settings import BatchSettings
from genloop.training.parts import cast_parameters
from tests.worlds.judge_data import held_out, objective, paths, wording

MIX = BatchSettings(groups=3, paths=3, previews=2, scenes=0)


@pytest.fixture(scope="module")
def made_up(tmp_path_factory):
    return paths(tmp_path_factory.mktemp("paths"))


@pytest.mark.parametrize("more", [{}, {"potential": "promising ?"}])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_margins_are_what_the_judge_answers(tmp_path, made_up, more, dtype):
    questions = wording(**more)
    here = objective(tmp_path, made_up, questions=questions, mix=MIX)
    cast_parameters(here.model, dtype)
    judge = LlavaJudge(here.model, here.plans.branches.tokenizer, questions, probability="two_way")
    answers = held_out(here).answers(here.model, World())
    assert len(answers) == (~np.isnan(made_up.labels)).sum()
    for number, question in enumerate(("outcome", "clarity", "potential")):
        rows = np.flatnonzero(~np.isnan(made_up.labels[:, number]))
        images = np.stack([made_up.images[made_up.image_of[row]] for row in rows])
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
        expected = judge.p_yes(question, [made_up.examples[row].prompt for row in rows], pixels)
        found = torch.tensor([a.margin for a in answers if a.question == question]).sigmoid()
        assert torch.allclose(found.float(), expected, atol=1e-5 if dtype == torch.float32 else 0.02)
        assert expected.std() > 1e-3


def test_questions_without_wording_are_not_measured(tmp_path, made_up):
    questions = wording()
    few = Questions({"outcome": questions.wording["outcome"]}, questions.chat)
    here = objective(tmp_path, made_up, questions=few, mix=MIX)
    answers = held_out(here).answers(here.model, World())
    assert {answer.question for answer in answers} == {"outcome"}
    assert len(answers) == (~np.isnan(made_up.labels[:, 0])).sum()


def test_conversations_are_measured_where_they_say_yes_or_no(tmp_path):
    (tmp_path / "a.png").write_bytes(encode_png(np.zeros((24, 24, 3), np.uint8)))
    turns = (("<image> a star : clear ?", "yes"), ("why ?", "no ring"), ("a star : promising ?", "no"))
    said = Conversation("a", tmp_path / "a.png", turns)
    mix = BatchSettings(groups=0, scenes=0, conversations=1)
    here = objective(tmp_path, mix=mix, conversations=[said], questions=wording(potential="{prompt} : promising ?"))
    answers = held_out(here).answers(here.model, World())
    assert [(a.question, a.step, a.prompt, a.label) for a in answers] == [
        ("clarity", "preview", "a star", 1.0),
        ("potential", "preview", "a star", 0.0),
    ]
    assert all(np.isfinite(answer.margin) for answer in answers)


def test_a_model_that_gives_no_number_is_not_measured_as_undecided(tmp_path, made_up):
    here = objective(tmp_path, made_up, mix=MIX)
    with torch.no_grad():
        here.model.lm_head.weight[here.plans.branches.yes] = torch.nan
    with pytest.raises(ValueError, match=r"no number for \d+ of \d+ held-out answers; .*train\.lr"):
        held_out(here).answers(here.model, World())
