"""Log-probabilities and losses of preference pairs equal the published code's, on every recorded set."""

import copy

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from genloop.models.showo.model import ShowO
from genloop.models.showo.prompting import IGNORE
from genloop.training.objectives.log_probs import id_log_probs, label_log_probs
from tests.goldens.roots import golden_name
from tests.goldens.showo_sets import ShowOSet, sets_with

TOLERANCE = 1e-3
SETS = sets_with("dpo.npz")


def name_of(golden: ShowOSet) -> str:
    return golden_name(golden.folder)


def reference(golden: ShowOSet) -> ShowO:
    model = copy.deepcopy(golden.model)
    model.load_state_dict(load_file(golden.folder / "ref_model.safetensors"))
    return model


def counted(golden: ShowOSet, labels: Tensor) -> Tensor:
    """The labels from soi on: the published loss begins there."""
    front = torch.arange(labels.shape[1]) < golden.config.text_length
    return labels.masked_fill(front, IGNORE)


@pytest.mark.parametrize("golden", SETS, ids=name_of)
@torch.inference_mode()
def test_released_log_probs_and_losses_equal_the_recorded_ones(golden: ShowOSet) -> None:
    recorded = golden.arrays("dpo.npz")
    ids, labels = recorded["input_ids"], counted(golden, recorded["labels"])
    policy, fixed = (label_log_probs(model, ids, labels) for model in (golden.model, reference(golden)))
    assert (policy.sum(1) - recorded["policy_logps"]).abs().max() <= TOLERANCE
    assert (fixed.sum(1) - recorded["reference_logps"]).abs().max() <= TOLERANCE
    chosen, rejected = (policy - fixed).sum(1).chunk(2)
    assert (chosen - rejected - recorded["dpo_logits"]).abs().max() <= TOLERANCE
    losses = -F.logsigmoid(recorded["beta"] * (chosen - rejected))
    assert (losses - recorded["dpo_losses"]).abs().max() <= TOLERANCE
    rows = slice(0, len(ids) // 2)
    sft = -policy[rows].sum() / (labels[rows] != IGNORE).sum()
    assert abs(sft - recorded["sft_loss"]) <= TOLERANCE


@pytest.mark.parametrize("golden", SETS, ids=name_of)
@torch.inference_mode()
def test_log_probs_of_codes_alone_equal_the_recorded_ones(golden: ShowOSet) -> None:
    recorded = golden.arrays("dpo.npz")
    labels = recorded["labels"][:, golden.config.text_length + 1 : -1]
    wanted = labels != IGNORE
    targets = torch.where(wanted, labels - golden.config.code_offset, 0)
    for model, name in ((golden.model, "policy"), (reference(golden), "reference")):
        found = id_log_probs(model, recorded["input_ids"], targets, wanted=wanted)
        everywhere = id_log_probs(model, recorded["input_ids"], targets)
        assert (found.sum(1) - recorded[f"{name}_logps_image_only"]).abs().max() <= TOLERANCE
        assert torch.allclose(everywhere[wanted], found[wanted], atol=1e-5) and not found[~wanted].any()
