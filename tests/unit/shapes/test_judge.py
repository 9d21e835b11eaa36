"""The shipped judge of the embedded world knows right images from wrong ones, previews too, and what is wrong."""

import numpy as np
import pytest
import torch

from ckpts.resolve import resolve, verify
from geneval.judge import ShapesOracle
from genloop.models.common.image_tokenizers import load_image_tokenizer
from genloop.models.showo.load import load_showo
from genloop.records import Seed
from genloop.rewards.build import build_judge
from genloop.rewards.settings import JudgeSettings
from genloop.sampling.maskgit.sampler import MaskGitSampler
from genloop.sampling.maskgit.settings import SamplingConfig
from genloop.shapes.prompts import prompt_set
from genloop.stats.judges.quality import JudgeAnswers, area_under_curve, auc_within

PATHS = 8
PROMPTS = prompt_set("test", 3, 6)  # six a task


@pytest.fixture(scope="module")
def judge():
    torch.set_num_threads(1)
    return build_judge(JudgeSettings(kind="llava", options={"checkpoint": "shapes/judge"}), resolve)


@pytest.fixture(scope="module")
def paths():
    """Previews after 9 of 18 steps and final images of eight paths a prompt, and whether they end right."""
    torch.set_num_threads(1)
    settings = SamplingConfig(
        order="object_first", token_temperature=0.7, preview="argmax", temperature_mode="cumulative"
    )
    tokenizer = load_image_tokenizer(resolve("shapes/tokenizer"))
    sampler = MaskGitSampler(load_showo(resolve("shapes/showo")), tokenizer, settings)
    prompts = [prompt for prompt in PROMPTS for _ in range(PATHS)]
    state = sampler.start(prompts, [Seed(5, p.index, 0, row % PATHS) for row, p in enumerate(prompts)])
    for _ in range(9):
        state = sampler.step(state)
    previews = sampler.preview(state)
    while state.steps[0] < sampler.num_steps:
        state = sampler.step(state)
    final = sampler.decode(state.tokens)
    return prompts, previews, final, ShapesOracle().p_yes("outcome", prompts, final).numpy()


def within(labels: np.ndarray, p_yes: np.ndarray) -> float:
    """AUC among the paths of a prompt, the mean over prompts that have right and wrong ones."""
    groups = [row // PATHS for row in range(len(labels))]
    found, num_groups = auc_within(JudgeAnswers(labels, p_yes, groups, groups), 0)
    assert found is not None and num_groups >= 15
    return found.estimate


def test_the_shipped_judge_is_as_registered():
    assert verify("shapes/judge") is None
    assert {"questions.yaml", "calibration.json"} <= {file.name for file in resolve("shapes/judge").iterdir()}


def test_outcomes_of_generated_images_are_told_apart(judge, paths):
    prompts, _, final, labels = paths
    p_yes = judge.p_yes("outcome", prompts, final).numpy()
    assert area_under_curve(labels, p_yes) >= 0.8
    assert within(labels, p_yes) >= 0.65


def test_previews_tell_among_the_paths_of_a_prompt_which_will_end_right(judge, paths):
    prompts, previews, _, labels = paths
    assert within(labels, judge.p_yes("potential", prompts, previews).numpy()) >= 0.6


def test_choosing_by_the_judge_beats_taking_the_first(judge, paths):
    prompts, _, final, labels = paths
    scores = judge.p_yes("outcome", prompts, final).numpy().reshape(-1, PATHS)
    chosen = labels.reshape(-1, PATHS)[np.arange(len(PROMPTS)), scores.argmax(axis=1)]
    assert chosen.mean() > labels.mean() + 0.05


def test_what_is_wrong_is_said_in_words(judge, paths):
    prompts, _, final, labels = paths
    wrong = [row for row, label in enumerate(labels) if label == 0][:24]
    reasons = judge.reasons([prompts[row] for row in wrong], final[wrong])
    said = [reason for reason in reasons if reason]
    assert len(said) >= 12
