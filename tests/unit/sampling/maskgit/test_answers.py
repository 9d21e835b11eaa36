"""Answers of a sampler's model do not depend on how many images share a pass."""

import numpy as np
import pytest
import torch

from genloop.records import Seed
from genloop.sampling.maskgit.answers import ShowoAnswers
from genloop.sampling.maskgit.sampler import MaskGitSampler
from genloop.sampling.maskgit.settings import SamplingConfig
from genloop.sampling.modes import AnswerSettings
from tests.worlds.tiny_showo import pixels_of, tiny_showo


@pytest.mark.parametrize("settings", [AnswerSettings(max_new_tokens=3), AnswerSettings(max_new_tokens=3, top_k=4)])
def test_images_that_do_not_fit_together_are_answered_in_smaller_passes(settings, monkeypatch):
    model = tiny_showo()
    images = list(np.random.default_rng(0).integers(0, 256, (9, 8, 8, 3), dtype=np.uint8))
    asked = images, ["why"] * 9, [Seed(0, line, 0, 0) for line in range(9)], settings
    answers = ShowoAnswers(MaskGitSampler(model, pixels_of(model), SamplingConfig()))
    expected = answers.answer(*asked)
    embed = model.showo.model.embed_tokens
    forward = embed.forward

    def tight(ids):
        if len(ids) > 8:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(ids)

    monkeypatch.setattr(embed, "forward", tight)
    assert answers.answer(*asked) == expected and len(set(expected)) > 1
    assert answers.budget.limit < 9
