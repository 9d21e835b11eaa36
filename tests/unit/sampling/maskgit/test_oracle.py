"""The fast sampler equals the published loop, told literally, on the same keyed draws."""

import pytest
import torch

from genloop.records import Seed
from genloop.sampling.maskgit.sampler import MaskGitSampler
from genloop.sampling.maskgit.settings import SamplingConfig
from genloop.sampling.noise import KeyedNoise
from tests.goldens.showo_oracle import full_recompute
from tests.worlds.tiny_showo import PROMPTS, pixels_of, random_codes, tiny_config, tiny_showo

SETTINGS = [
    SamplingConfig(steps=6),
    SamplingConfig(steps=1, guidance_scale=3.0),
    SamplingConfig(steps=30, guidance_scale=0.5),
    SamplingConfig(steps=5, guidance_scale=0.0, temperature=4.5),
    SamplingConfig(steps=7, schedule="linear", temperature_mode="cumulative"),
    SamplingConfig(steps=4, schedule="pow2.5", temperature=0.0),
    SamplingConfig(steps=4, schedule="sigmoid", guidance_scale=5.0),
]


@pytest.mark.parametrize("config", [tiny_config(), tiny_config(num_tokens=25, codebook_size=200, width=64)])
@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: f"{s.schedule}-{s.steps}-{s.guidance_scale}")
@pytest.mark.parametrize("is_known", [False, True])
def test_every_step_equals_the_full_recompute(config: object, settings: SamplingConfig, is_known: bool) -> None:
    model = tiny_showo(config)
    seeds = [Seed(3, prompt.index, 0, 0) for prompt in PROMPTS]
    start = torch.full((len(PROMPTS), config.num_vq_tokens), config.codebook_size)
    if is_known:
        hidden = torch.rand(start.shape, generator=torch.Generator().manual_seed(4)) < 0.5
        start = torch.where(hidden, start, random_codes(model, len(PROMPTS)))
    tokens, sampled = full_recompute(model, [p.text for p in PROMPTS], start, settings, seeds, KeyedNoise())
    sampler = MaskGitSampler(model, pixels_of(model), settings)
    state = sampler.start(PROMPTS, seeds, start)
    for step in range(settings.steps):
        state = sampler.step(state)
        assert torch.equal(state.guess, sampled[step])
    assert torch.equal(state.tokens, tokens)
