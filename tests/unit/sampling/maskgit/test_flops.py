"""Nominal costs: what a step and a decode take, against counts by hand and the operations that torch counts."""

from functools import partial

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from genloop.models.magvit2.config import MagvitConfig, decode_flops
from genloop.models.magvit2.load import build_magvit2
from genloop.models.showo.config import ShowOConfig
from genloop.sampling.maskgit.flops import body_flops, head_flops, step_flops
from genloop.sampling.maskgit.sampler import MaskGitSampler
from genloop.sampling.maskgit.settings import SamplingConfig
from tests.worlds.tiny_showo import PROMPTS, pixels_of, seeds_of, tiny_config, tiny_showo


def counted(work) -> float:
    """What torch counts."""
    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


def test_the_published_model_takes_about_what_is_known_of_it() -> None:
    config = ShowOConfig()
    assert body_flops(config) / 258 == pytest.approx(2.66e9 - 2 * 2048 * 58498, rel=0.03)  # known with the whole head
    assert step_flops(config, SamplingConfig()) == pytest.approx(1.3e12, rel=0.03)
    assert decode_flops(MagvitConfig()) == pytest.approx(0.3e12, rel=0.25)


def test_a_step_without_guidance_is_one_pass_and_the_head() -> None:
    config = tiny_config()
    unguided = step_flops(config, SamplingConfig(steps=1, guidance_scale=0.0))
    assert unguided == body_flops(config) + head_flops(config, 16)
    assert step_flops(config, SamplingConfig(steps=1)) == unguided + body_flops(config)


def test_the_first_step_is_what_torch_counts() -> None:
    """But for attention, whose CPU kernel torch does not know: 66 queries by 66 keys, 2 layers, 2 branches.

    Grouped rows take fewer: what nobody reads of their first and last layer is left out.
    """
    model = tiny_showo(tiny_config(num_tokens=64, codebook_size=200, width=64))
    settings = SamplingConfig(steps=1)
    samplers = {
        name: MaskGitSampler(model, pixels_of(model), settings.model_copy(update={"padded": name == "padded"}))
        for name in ("padded", "grouped")
    }
    assert {sampler.flops_per_step for sampler in samplers.values()} == {step_flops(model.config, settings)}
    found = {}
    for name, sampler in samplers.items():
        state = sampler.start(PROMPTS[1:2], seeds_of(PROMPTS[1:2]))
        found[name] = counted(partial(sampler.step, state)) + 2 * 2 * 66 * (4 * 66 * 64)
    assert found["padded"] == step_flops(model.config, settings) > 1.4 * found["grouped"]


def test_decoding_is_what_torch_counts() -> None:
    tokenizer = build_magvit2(MagvitConfig(num_bits=5, width=8, num_groups=4, resolution=64), seed=0).eval()
    codes = torch.zeros(1, 16, dtype=torch.int64)
    assert tokenizer.flops_per_decode == pytest.approx(counted(lambda: tokenizer.decode(codes)), rel=0.02)
