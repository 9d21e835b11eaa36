"""The published sampling loop, told literally: the whole padded sequence and the whole head, at every step.

What the fast sampler must equal. B = rows, n = image tokens, L = sequence length, V = vocabulary.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from genloop.models.showo.model import ShowO
from genloop.models.showo.prompting import Layout, omni_mask
from genloop.records import Seed
from genloop.sampling.maskgit.schedule import choice_temperature, masked_after
from genloop.sampling.maskgit.settings import SamplingConfig
from genloop.sampling.noise import NoiseSource


@torch.inference_mode()
def full_recompute(
    model: ShowO,
    texts: Sequence[str],
    start: Tensor,
    settings: SamplingConfig,
    seeds: Sequence[Seed],
    noise: NoiseSource,
) -> tuple[Tensor, list[Tensor]]:
    """start (B, n) with K where masked -> tokens (B, n), the candidate tokens (B, n) of each step."""
    config, layout = model.config, Layout(model.config, model.text_tokenizer)
    n, mask_code, g = config.num_vq_tokens, config.codebook_size, settings.guidance_scale
    tokens, sampled = start.clone(), []
    rounds = [0] * len(seeds)
    for step in range(settings.steps):
        steps = [step] * len(seeds)
        logits = _logits(model, layout, texts, tokens)
        if g > 0:
            logits = (1 + g) * logits - g * _logits(model, layout, [""] * len(texts), tokens)
        probs = logits[:, config.text_length + 1 : -1, config.code_offset : -1].softmax(-1)  # (B, n, K)
        everywhere = torch.ones_like(tokens, dtype=torch.bool).nonzero(as_tuple=True)
        drawn = noise.tokens(seeds, n, steps, rounds)(probs.flatten(0, 1), everywhere).view(tokens.shape)
        unknown = tokens == mask_code
        drawn = torch.where(unknown, drawn, tokens)
        sampled.append(drawn)
        if step == settings.steps - 1:
            break
        chosen = probs.gather(-1, drawn[..., None])[..., 0]
        confidence = torch.where(unknown, chosen, torch.finfo(torch.float32).max)
        temperature = choice_temperature(settings.temperature_mode, settings.temperature, step, settings.steps)
        uniform = noise.uniforms(seeds, n, steps, rounds)
        counts = torch.full((len(texts),), masked_after(settings.schedule, step, settings.steps, n))
        counts = torch.minimum(counts, unknown.sum(1) - 1).clamp(min=1)
        tokens = drawn.masked_fill(_lowest(confidence, counts, temperature, uniform), mask_code)
    return sampled[-1], sampled


def _lowest(probs: Tensor, counts: Tensor, temperature: float, uniform: Tensor) -> Tensor:
    """probs (B, n), counts (B,) -> (B, n) True for the `counts` least confident, after Gumbel noise on the log."""
    noise = -torch.log((-torch.log(uniform.clamp(min=1e-20))).clamp(min=1e-20))
    confidence = torch.log(probs.clamp(min=1e-20)) + temperature * noise
    threshold = confidence.sort(dim=1).values.gather(1, counts[:, None].long())
    return confidence < threshold


def _logits(model: ShowO, layout: Layout, texts: Sequence[str], tokens: Tensor) -> Tensor:
    """-> (B, L, V) float32"""
    ids = layout.t2i(texts, tokens)
    return model(ids, omni_mask(ids, model.config)).float()
