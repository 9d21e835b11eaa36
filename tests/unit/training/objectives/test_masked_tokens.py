"""Show-o's masked-token training: the public loss, keyed batches, fresh weights."""

import math

import numpy as np
import pytest
import torch

from genloop.data.arrays import read_codes
from genloop.data.shards import Shards
from genloop.models.common.text import FileTokenizer
from genloop.models.showo.config import PhiDims, ShowOConfig
from genloop.models.showo.load import build_showo
from genloop.models.showo.prompting import Layout, omni_mask
from genloop.shapes.codebook import PatchCodebook
from genloop.training.initialization import EMBEDDING_STD, code_patches, embed_patches, scale_by_fan_in
from genloop.training.objectives.masked_tokens import MaskedTokens, draw_masks
from tests.runs import ROOT

DATA = ROOT / "configs" / "data" / "shapes"
CODEBOOK = PatchCodebook.enumerate()


def small_showo(seed: int = 0):
    text = FileTokenizer(ROOT / "ckpts/tiny/text_tokenizer")
    phi = PhiDims(16, 32, 1, 2, 2, partial_rotary_factor=1.0, rope_theta=100.0)
    config = ShowOConfig(CODEBOOK.num_codes, 36, text.num_tokens, max_seq_length=16, phi=phi)
    model = build_showo(config, seed=seed, text_tokenizer=text)
    scale_by_fan_in(model)
    return model, Layout(config, text)


def objective(batch_size: int = 6, seed: int = 0, *, ends: bool = True) -> MaskedTokens:
    model, layout = small_showo()
    shards = Shards(DATA / "shards")
    return MaskedTokens(model, layout, shards, seed=seed, batch_size=batch_size, drop_captions=0.3, ends=ends)


def loss_of(here: MaskedTokens, step: int, rows=slice(None)):
    plan = here.plan(step)
    return here.loss(here.load(plan.items[rows], plan))


@pytest.mark.parametrize("ends", [True, False])
def test_the_loss_is_the_published_one(ends):
    """CE over the whole padded row from the soi position on, no shift, against labels that keep soi and eoi."""
    here = objective(ends=ends)
    config, plan = here.model.config, here.plan(1)
    samples = [here.shards[item.row] for item in plan.items]
    codes = torch.from_numpy(np.stack([read_codes(sample, 36) for sample in samples]))
    masked = torch.from_numpy(np.stack([item.masked for item in plan.items]))
    captions = [sample.fields["txt"].decode() for sample in samples]
    hidden = torch.where(masked, config.codebook_size, codes)
    targets = torch.where(masked, codes, -100)
    ids, labels = here.layout.t2i_training(captions, hidden, targets, [item.is_dropped for item in plan.items])
    if not ends:
        labels[(labels == config.soi_id) | (labels == config.eoi_id)] = -100
    start = config.text_length
    logits = here.model(ids, omni_mask(ids, config))[:, start:]
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, start:].flatten(), ignore_index=-100)
    loss = loss_of(here, 1)
    assert loss.weight == plan.weight == masked.sum() + (12 if ends else 0)
    assert torch.allclose(loss.total / loss.weight, expected, atol=1e-5)


def test_the_loss_of_a_batch_is_the_sum_over_its_rows():
    here = objective()
    whole = loss_of(here, 3)
    parts = [loss_of(here, 3, rows) for rows in (slice(0, 3), slice(3, 5), slice(5, 6))]
    assert whole.weight == sum(part.weight for part in parts)
    assert torch.allclose(whole.total, sum(part.total for part in parts), rtol=1e-5)


def test_a_plan_is_a_function_of_seed_and_step():
    def key(plan) -> list:
        return [(item.row, item.masked.tolist(), item.is_dropped) for item in plan.items]

    here = objective()
    assert key(here.plan(2)) == key(objective().plan(2))
    assert key(here.plan(2)) not in (key(here.plan(3)), key(objective(seed=1).plan(2)))


def test_masks_follow_the_cosine_and_hide_at_least_one_token():
    masked = torch.from_numpy(draw_masks(np.random.default_rng(0), 20000, 36))
    counts = masked.sum(dim=1).double()
    assert counts.min() == 1
    assert counts.max() == 36
    assert counts.mean() / 36 == pytest.approx(2 / math.pi, abs=0.01)
    assert (masked.double().mean(dim=0) - 2 / math.pi).abs().max() < 0.02


def test_captions_are_dropped_at_the_given_rate():
    here = objective(batch_size=50)
    dropped = [item.is_dropped for step in range(1, 41) for item in here.plan(step).items]
    assert np.mean(dropped) == pytest.approx(0.3, abs=0.04)


def test_fresh_weights_have_the_wanted_scale():
    model, _ = small_showo()
    layer = model.showo.model.layers[0]
    assert layer.mlp.fc2.weight.std().item() == pytest.approx(32**-0.5, rel=0.1)
    assert model.showo.lm_head.weight.std().item() == pytest.approx(16**-0.5, rel=0.1)
    assert model.showo.model.embed_tokens.weight.std().item() == pytest.approx(EMBEDDING_STD, rel=0.1)


def test_embeddings_of_codes_are_a_projection_of_their_pixels():
    model, _ = small_showo()
    before = model.showo.model.embed_tokens.weight.detach().clone()
    embed_patches(model, CODEBOOK, seed=1)
    after = model.showo.model.embed_tokens.weight.detach()
    first, last = model.config.code_offset, model.config.mask_token_id
    assert torch.equal(before[:first], after[:first])
    assert torch.equal(before[last:], after[last:])
    patches = code_patches(CODEBOOK)
    assert patches.shape == (CODEBOOK.num_codes, 48)
    fit = torch.linalg.lstsq(
        torch.cat([patches, torch.ones(len(patches), 1)], dim=1).double(), after[first:last].double()
    )
    residual = torch.cat([patches, torch.ones(len(patches), 1)], dim=1).double() @ fit.solution - after[first:last]
    assert residual.abs().max() < 1e-4
    assert after[first:last].std().item() == pytest.approx(EMBEDDING_STD, rel=0.01)
