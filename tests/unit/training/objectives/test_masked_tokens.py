"""Show-o's masked-token training: the public loss, keyed batches, fresh weights."""

import math

import numpy as np
import pytest
import torch

from genloop.data.shards import Sample, Shards
from genloop.models.common.text import FileTokenizer
from genloop.models.showo.model import PhiDims, ShowOConfig, build_showo
from genloop.models.showo.prompting import Layout, omni_mask
from genloop.shapes.codebook import PatchCodebook
from genloop.training.initialization import EMBEDDING_STD, code_patches, embed_patches, scale_by_fan_in
from genloop.training.objectives.masked_tokens import (
    CaptionedCodeBatches,
    Order,
    draw_masks,
    masked_token_loss,
    read_codes,
)
from tests.runs import ROOT

DATA = ROOT / "tests" / "data" / "shapes"
CODEBOOK = PatchCodebook.enumerate()


def small_showo(seed: int = 0):
    text = FileTokenizer(DATA / "text_tokenizer")
    phi = PhiDims(16, 32, 1, 2, 2, partial_rotary_factor=1.0, rope_theta=100.0)
    config = ShowOConfig(CODEBOOK.num_codes, 36, text.num_tokens, max_seq_length=16, phi=phi)
    model = build_showo(config, seed=seed, text_tokenizer=text)
    scale_by_fan_in(model)
    return model, Layout(config, text)


def batches(batch_size: int = 6, seed: int = 0) -> CaptionedCodeBatches:
    return CaptionedCodeBatches(
        Shards(DATA / "shards"), seed=seed, batch_size=batch_size, num_tokens=36, drop_captions=0.3
    )


@pytest.mark.parametrize("ends", [True, False])
def test_the_loss_is_the_published_one(ends):
    """CE over the whole padded row from the soi position on, no shift, against labels that keep soi and eoi."""
    model, layout = small_showo()
    batch = batches()(1)
    hidden = torch.where(batch.masked, model.config.codebook_size, batch.codes)
    targets = torch.where(batch.masked, batch.codes, -100)
    ids, labels = layout.t2i_training(batch.captions, hidden, targets, batch.dropped)
    if not ends:
        labels[(labels == model.config.soi_id) | (labels == model.config.eoi_id)] = -100
    start = model.config.text_length
    logits = model(ids, omni_mask(ids, model.config))[:, start:]
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, start:].flatten(), ignore_index=-100)
    loss = masked_token_loss(model, layout, batch, range(6), ends=ends)
    assert loss.weight == batch.masked.sum() + (12 if ends else 0)
    assert torch.allclose(loss.total / loss.weight, expected, atol=1e-5)


def test_the_loss_of_a_batch_is_the_sum_over_its_rows():
    model, layout = small_showo()
    batch = batches()(3)
    whole = masked_token_loss(model, layout, batch, range(6), ends=True)
    parts = [masked_token_loss(model, layout, batch, rows, ends=True) for rows in ([0, 2, 4], [1, 3], [5])]
    assert whole.weight == sum(part.weight for part in parts)
    assert torch.allclose(whole.total, sum(part.total for part in parts), rtol=1e-5)


def test_a_batch_is_a_function_of_seed_and_step():
    first, again, other = batches()(2), batches()(2), batches(seed=1)(2)
    assert torch.equal(first.codes, again.codes)
    assert torch.equal(first.masked, again.masked)
    assert first.captions == again.captions
    assert first.dropped == again.dropped
    assert not torch.equal(first.masked, other.masked)


def test_an_epoch_shows_every_sample_once_and_the_next_another_order():
    order = Order(10, seed=4)
    seen = [row for step in range(1, 6) for row in order.rows(step, 4)]
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10))
    assert seen[:10] != seen[10:]
    assert order.rows(2, 4) == seen[4:8]


def test_masks_follow_the_cosine_and_hide_at_least_one_token():
    masked = draw_masks(np.random.default_rng(0), 20000, 36)
    counts = masked.sum(dim=1).double()
    assert counts.min() == 1
    assert counts.max() == 36
    assert counts.mean() / 36 == pytest.approx(2 / math.pi, abs=0.01)
    assert (masked.double().mean(dim=0) - 2 / math.pi).abs().max() < 0.02


def test_captions_are_dropped_at_the_given_rate():
    source = batches(batch_size=50)
    assert np.mean([source(step).dropped for step in range(1, 41)]) == pytest.approx(0.3, abs=0.04)


def test_samples_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"sample 7 has txt; training needs codes\.npy and txt"):
        read_codes(Sample("7", {"txt": b""}), 36)
    sample = Shards(DATA / "shards")[0]
    with pytest.raises(ValueError, match=r"sample 000000000 has codes of shape \[36\], the model takes \[256\]"):
        read_codes(sample, 256)


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
