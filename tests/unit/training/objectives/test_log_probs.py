"""Log-probabilities of codes: guidance, dropped captions, gradients."""

import pytest
import torch

from genloop.models.showo.prompting import Layout, omni_mask
from genloop.training.objectives.log_probs import code_log_probs
from tests.worlds.tiny_showo import random_codes, tiny_showo

CAPTIONS = ["red apple", "two dogs and a bird"]


def parts():
    model = tiny_showo()
    codes = random_codes(model, 2)
    inputs = codes.clone()
    inputs[:, ::2] = model.config.codebook_size
    return model, Layout(model.config, model.text_tokenizer), inputs, codes


def test_guidance_combines_the_logits_of_both_branches():
    model, layout, inputs, codes = parts()
    guided = code_log_probs(model, layout, CAPTIONS, inputs, codes, dropped=[False] * 2, guidance_scale=1.5)
    ids = layout.t2i([*CAPTIONS, "", ""], inputs.repeat(2, 1))
    logits = model.code_logits(model.hidden(ids, omni_mask(ids, model.config))[:, -codes.shape[1] - 1 : -1])
    by_hand = (2.5 * logits[:2] - 1.5 * logits[2:]).log_softmax(-1).gather(2, codes[:, :, None])[..., 0]
    assert torch.allclose(guided, by_hand, atol=1e-4)


@pytest.mark.parametrize("scale", [0.0, 1.75])
def test_a_dropped_caption_gives_the_unconditional_branch(scale):
    model, layout, inputs, codes = parts()
    dropped = code_log_probs(model, layout, CAPTIONS, inputs, codes, dropped=[True] * 2, guidance_scale=scale)
    empty = code_log_probs(model, layout, ["", ""], inputs, codes, dropped=[False] * 2)
    assert torch.allclose(dropped, empty, atol=1e-4)


def test_probabilities_of_all_codes_add_up_to_one_and_have_a_gradient():
    model, layout, inputs, _ = parts()
    size = model.config.codebook_size
    every = torch.arange(size)[:, None].expand(size, inputs.shape[1]).contiguous()
    found = code_log_probs(
        model, layout, CAPTIONS[:1] * size, inputs[:1].repeat(size, 1), every, dropped=[False] * size
    )
    assert torch.allclose(found.exp().sum(0), torch.ones(inputs.shape[1]), atol=1e-5)
    (gradient,) = torch.autograd.grad(found[0].sum(), [model.showo.lm_head.bias])
    assert gradient.abs().max() > 0
