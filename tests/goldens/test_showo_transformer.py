"""Sequences, masks, logits and losses equal the published code's, on every recorded set."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from genloop.models.showo.config import ShowOConfig, showo_manifest
from genloop.models.showo.model import additive_mask
from genloop.models.showo.prompting import IGNORE, omni_mask, prefix_mask
from tests.goldens.roots import golden_name, golden_paths
from tests.goldens.showo_sets import ShowOSet, read_json, sets_with

TOLERANCE = 1e-4
PROMPTING, LOGITS, LOSSES = sets_with("prompting.npz"), sets_with("logits.npz"), sets_with("train_losses.npz")


def mmu_mask(ids: Tensor, config: ShowOConfig) -> Tensor:
    """ids (B, L) of mmu rows -> (B, 1, L, L): causal, and every row sees the image part up to its eoi."""
    is_eoi = ids == config.eoi_id
    return prefix_mask((is_eoi.cumsum(1) == 0) | is_eoi)


def name_of(golden: ShowOSet) -> str:
    return golden_name(golden.folder)


def all_masked(golden: ShowOSet) -> Tensor:
    return torch.full((len(golden.prompting["prompts"]), golden.config.num_vq_tokens), golden.config.codebook_size)


@pytest.mark.parametrize("golden", PROMPTING, ids=name_of)
def test_special_ids_are_the_recorded_ones(golden: ShowOSet) -> None:
    config, ids = golden.config, golden.prompting["special_ids"]
    ours = {
        "<|pad|>": config.pad_id,
        "<|soi|>": config.soi_id,
        "<|eoi|>": config.eoi_id,
        "<|t2i|>": config.t2i_id,
        "<|mmu|>": config.mmu_id,
        "<|sot|>": golden.layout.text.bos_id,
        "<|eot|>": golden.layout.text.eos_id,
    }
    assert ours == {name: ids[name] for name in ours}
    assert (config.code_offset, config.mask_token_id) == (
        golden.prompting["code_offset"],
        golden.prompting["mask_token_id"],
    )


@pytest.mark.parametrize("golden", PROMPTING, ids=name_of)
def test_generation_rows_equal_the_recorded_ones(golden: ShowOSet) -> None:
    recorded, prompts = golden.arrays("prompting.npz"), golden.prompting["prompts"]
    assert torch.equal(golden.layout.t2i(prompts, all_masked(golden)), recorded["t2i_gen_ids"])
    assert torch.equal(golden.layout.t2i([""] * len(prompts), all_masked(golden)), recorded["uncond_ids"])


@pytest.mark.parametrize("golden", PROMPTING, ids=name_of)
def test_generation_masks_equal_the_recorded_ones(golden: ShowOSet) -> None:
    recorded = golden.arrays("prompting.npz")
    ids = torch.cat([recorded["t2i_gen_ids"], recorded["uncond_ids"]])
    assert torch.equal(omni_mask(ids, golden.config), recorded["attn_bool_rm_pad"])
    assert torch.equal(omni_mask(ids, golden.config, see_pads=True), recorded["attn_bool_keep_pad"])


@pytest.mark.parametrize("golden", PROMPTING, ids=name_of)
def test_training_rows_equal_the_recorded_ones(golden: ShowOSet) -> None:
    recorded, prompts = golden.arrays("prompting.npz"), golden.prompting["prompts"]
    offset = golden.config.code_offset
    labels = recorded["t2i_train_image_labels"]
    ours = golden.layout.t2i_training(
        prompts,
        recorded["t2i_train_image_ids"] - offset,
        torch.where(labels == IGNORE, IGNORE, labels - offset),
        (recorded["t2i_train_uniform_dropout"] < golden.prompting["cond_dropout_prob"]).tolist(),
    )
    assert torch.equal(ours[0], recorded["t2i_train_ids"])
    assert torch.equal(ours[1], recorded["t2i_train_labels"])


@pytest.mark.parametrize("golden", PROMPTING, ids=name_of)
def test_the_image_part_of_understanding_rows_and_their_masks_equal_the_recorded_ones(golden: ShowOSet) -> None:
    recorded = golden.arrays("prompting.npz")
    ids, image = recorded["mmu_ids"], golden.layout.mmu_image(recorded["mmu_codes"])
    assert torch.equal(image, ids[:, : image.shape[1]])
    assert torch.equal(mmu_mask(ids, golden.config), recorded["mmu_attn_bool"])


@pytest.mark.parametrize("golden", LOGITS, ids=name_of)
@pytest.mark.parametrize("kind", ["allmask", "partial"])
@torch.inference_mode()
def test_generation_logits_equal_the_recorded_ones(golden: ShowOSet, kind: str) -> None:
    recorded = golden.arrays("logits.npz")
    ids = recorded[f"ids_{kind}"]
    for allow in (recorded["attn_bool"], additive_mask(recorded["attn_bool"], torch.float32)):
        logits = golden.model(ids, allow)
        assert (logits - recorded[f"logits_{kind}"]).abs().max() <= TOLERANCE
    assert torch.equal(omni_mask(ids, golden.config), recorded["attn_bool"])


@pytest.mark.parametrize("golden", LOGITS, ids=name_of)
@torch.inference_mode()
def test_understanding_and_text_logits_equal_the_recorded_ones(golden: ShowOSet) -> None:
    recorded = golden.arrays("logits.npz")
    for kind, mask in (("mmu", mmu_mask), ("lm", omni_mask)):
        ids = recorded[f"{kind}_ids"]
        logits = golden.model(ids, mask(ids, golden.config))
        assert (logits - recorded[f"{kind}_logits"]).abs().max() <= TOLERANCE


@pytest.mark.parametrize("golden", LOSSES, ids=name_of)
@torch.inference_mode()
def test_training_losses_equal_the_recorded_ones(golden: ShowOSet) -> None:
    recorded = golden.arrays("train_losses.npz")
    ids, labels, first = recorded["ids"], recorded["labels"], golden.config.text_length
    lm = int(recorded["n_t2i"])
    mmu = lm + int(recorded["n_lm"])
    assert torch.equal(omni_mask(ids[:mmu], golden.config), recorded["attn_bool"][:mmu])
    assert torch.equal(mmu_mask(ids[mmu:], golden.config), recorded["attn_bool"][mmu:])
    logits = golden.model(ids, recorded["attn_bool"])

    def loss(rows: slice, shift: int, start: int) -> Tensor:
        predicted = logits[rows, start : logits.shape[1] - shift].flatten(0, 1)
        return F.cross_entropy(predicted, labels[rows, start + shift :].flatten(), ignore_index=IGNORE)

    assert abs(loss(slice(0, lm), 0, first) - recorded["loss_t2i"]) <= TOLERANCE
    assert abs(loss(slice(lm, mmu), 1, 0) - recorded["loss_lm"]) <= TOLERANCE
    assert abs(loss(slice(mmu, None), 1, 0) - recorded["loss_mmu"]) <= TOLERANCE


@pytest.mark.parametrize("path", golden_paths("showo/**/showo_manifest.json"), ids=golden_name)
def test_the_public_checkpoint_has_the_recorded_tensors(path: object) -> None:
    recorded = {key: tuple(entry[0]) for key, entry in read_json(path).items()}
    plain = {key: shape for key, shape in recorded.items() if not key.startswith("(")}
    clip = {key.rpartition(" ")[2]: shape for key, shape in recorded.items()}
    assert showo_manifest(ShowOConfig()) == plain
    assert showo_manifest(ShowOConfig(w_clip_vit=True)) == clip
