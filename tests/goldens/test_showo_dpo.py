"""Log-probabilities and losses of preference pairs equal the published code's, on every recorded set."""

import copy

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from genloop.models.showo.model import ShowO
from genloop.models.showo.prompting import IGNORE
from genloop.training.objectives.log_probs import code_log_softmax, vocabulary_log_softmax
from genloop.training.objectives.preference.losses import pair_terms
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


def rows_of(golden: ShowOSet, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """labels (R, W) of soi, codes, eoi -> the row, the spot and the label of each that counts."""
    rows, columns = (labels != IGNORE).nonzero(as_tuple=True)
    return rows, rows * labels.shape[1] + columns, labels[rows, columns]


def sums(found: Tensor, rows: Tensor, targets: Tensor, num_rows: int) -> Tensor:
    """Log-softmax at the spots (S, V) -> sums over each row (R,)."""
    return torch.zeros(num_rows).index_add(0, rows, found.gather(1, targets[:, None])[:, 0])


@pytest.mark.parametrize("golden", SETS, ids=name_of)
@torch.inference_mode()
def test_released_log_probs_and_losses_equal_the_recorded_ones(golden: ShowOSet) -> None:
    recorded = golden.arrays("dpo.npz")
    ids, labels = recorded["input_ids"], recorded["labels"][:, golden.config.text_length :]
    rows, spots, targets = rows_of(golden, labels)
    policy, fixed = (
        sums(vocabulary_log_softmax(model, ids, spots), rows, targets, len(ids))
        for model in (golden.model, reference(golden))
    )
    assert (policy - recorded["policy_logps"]).abs().max() <= TOLERANCE
    assert (fixed - recorded["reference_logps"]).abs().max() <= TOLERANCE
    sides = [torch.stack(part.chunk(2), 1)[:, None] for part in (policy, fixed)]  # (B, 1, 2)
    beta = float(recorded["beta"])
    terms = pair_terms(*sides, beta=beta, wanted_margin=torch.zeros(len(ids) // 2))
    assert (terms.margin / beta - recorded["dpo_logits"]).abs().max() <= TOLERANCE
    assert (terms.dpo - recorded["dpo_losses"]).abs().max() <= TOLERANCE
    sft = -policy[: len(ids) // 2].sum() / (labels[: len(ids) // 2] != IGNORE).sum()
    assert abs(sft - recorded["sft_loss"]) <= TOLERANCE


@pytest.mark.parametrize("golden", SETS, ids=name_of)
@torch.inference_mode()
def test_log_probs_of_codes_alone_equal_the_recorded_ones(golden: ShowOSet) -> None:
    recorded = golden.arrays("dpo.npz")
    labels = recorded["labels"][:, golden.config.text_length :].clone()
    labels[:, [0, -1]] = IGNORE
    rows, spots, targets = rows_of(golden, labels)
    for model, name in ((golden.model, "policy"), (reference(golden), "reference")):
        found = code_log_softmax(model, recorded["input_ids"], spots)
        ours = sums(found, rows, targets - golden.config.code_offset, len(labels))
        assert (ours - recorded[f"{name}_logps_image_only"]).abs().max() <= TOLERANCE
