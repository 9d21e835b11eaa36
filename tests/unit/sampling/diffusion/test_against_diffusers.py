"""Images equal those of diffusers' own pipelines given the same noise, and steps those of its schedulers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from genloop.records import Prompt, Seed
from genloop.registry import require
from genloop.sampling.diffusion.maker import DiffusionGenerator, DiffusionOptions
from genloop.sampling.diffusion.settings import DiffusionSampling
from genloop.sampling.diffusion.tables import CLASSES, build_scheduler, scheduler_table
from genloop.sampling.noise import gaussian
from genloop.sampling.settings import Runtime
from tests.worlds.tiny_diffusion import PIXELS, SCHEDULE, STEPS, write_pipeline

PROMPTS = [Prompt(0, "a ring"), Prompt(1, "two stars left of a red square")]
SEEDS = [Seed(1, prompt.index, 0, 0) for prompt in PROMPTS]
LATENTS = (4, PIXELS // 2, PIXELS // 2)


@pytest.fixture(scope="module", params=["sd", "sdxl"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pipeline(tmp_path_factory.mktemp("pipelines") / request.param, xl=request.param == "sdxl")


class Generators:
    """Keyed noise at the start, then that of a torch generator a seed, as a pipeline draws it."""

    def __init__(self) -> None:
        self.of = {seed: torch.Generator().manual_seed(seed.prompt) for seed in SEEDS}

    def __call__(self, seed: Seed, shape: tuple[int, ...], *, step: int, round: int, purpose: str) -> Tensor:
        if purpose == "latents":
            return gaussian(seed, shape, step=step, round=round, purpose=purpose)
        return torch.randn((1, *shape), generator=self.of[seed])[0]


def ours(folder: Path, settings: DiffusionSampling) -> np.ndarray:
    """(B, H, W, 3) in [0, 1]"""
    sampler = DiffusionGenerator.load(DiffusionOptions(pipeline=str(folder)), settings, Path, Runtime())
    sampler.noise = Generators()
    state = sampler.start(PROMPTS, SEEDS)
    for _ in range(settings.num_steps):
        state = sampler.step(state)
    return sampler.decode(state.content).permute(0, 2, 3, 1).numpy()


def theirs(folder: Path, settings: DiffusionSampling, **more: Any) -> np.ndarray:
    """(B, H, W, 3) in [0, 1], from the pipeline's own loop"""
    pipe = require("diffusers").DiffusionPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = build_scheduler({"_class_name": "DDIMScheduler", **SCHEDULE}, settings.scheduler)
    noise = [gaussian(seed, LATENTS, step=0, round=0, purpose="latents") for seed in SEEDS]
    return pipe(
        [prompt.text for prompt in PROMPTS],
        latents=torch.stack(noise),
        num_inference_steps=settings.steps,
        guidance_scale=settings.guidance_scale,
        generator=list(Generators().of.values()),
        height=PIXELS,
        width=PIXELS,
        output_type="np",
        **more,
    ).images


@pytest.mark.parametrize("scheduler", ["ddim", "euler", "dpmpp_2m", "lcm"])
@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_images_equal_those_of_the_pipeline(folder: Path, scheduler: Any, guidance: float) -> None:
    settings = DiffusionSampling(steps=STEPS, scheduler=scheduler, guidance_scale=guidance)
    found, wanted = ours(folder, settings), theirs(folder, settings)
    assert wanted.std() > 0.01  # there is something to see
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1 / 255)


def test_a_negative_prompt_is_that_of_the_pipeline(folder: Path) -> None:
    settings = DiffusionSampling(steps=STEPS, scheduler="ddim", guidance_scale=5, negative_prompt="a blue square")
    wanted = theirs(folder, settings, negative_prompt=["a blue square"] * 2)
    np.testing.assert_allclose(ours(folder, settings), wanted, rtol=0, atol=1 / 255)


CONFIGS: dict[str, dict[str, Any]] = {
    "leading": {},
    "trailing": {"timestep_spacing": "trailing"},
    "linspace": {"timestep_spacing": "linspace"},
    "v": {"prediction_type": "v_prediction"},
    "one": {"set_alpha_to_one": True},
    "karras": {"use_karras_sigmas": True},
    "heun": {"solver_type": "heun"},
}


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("name", [name for name in CLASSES if name != "flow_euler"])
@pytest.mark.parametrize("steps", [1, 4, 20])
def test_steps_equal_those_of_the_scheduler(name: Any, config: str, steps: int) -> None:
    assert_equal_steps({**SCHEDULE, **CONFIGS[config], "_class_name": "DDIMScheduler"}, name, steps)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_steps_of_flow_matching_equal_those_of_the_scheduler(shift: float) -> None:
    assert_equal_steps({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": shift}, "flow_euler", 7)


def assert_equal_steps(config: dict[str, Any], name: Any, steps: int) -> None:
    """A path whose network answers at random."""
    table, scheduler = scheduler_table(config, name, steps), build_scheduler(config, name)
    scheduler.set_timesteps(steps)
    chance = torch.Generator().manual_seed(0)
    theirs = torch.randn(1, 4, 4, 4, generator=chance) * table.levels.start
    mine, before = theirs.double(), torch.zeros(1, 4, 4, 4, dtype=torch.float64)
    for place, time in enumerate(scheduler.timesteps):
        assert float(time) == pytest.approx(float(table.levels.timesteps[place]))
        if hasattr(scheduler, "scale_model_input"):
            seen = scheduler.scale_model_input(theirs, time)
            torch.testing.assert_close(seen.double(), table.scale[place] * mine, rtol=1e-4, atol=1e-4)
        output = torch.randn(1, 4, 4, 4, generator=chance)
        drawn = {"generator": torch.Generator().manual_seed(place)} if name == "lcm" else {}
        theirs = scheduler.step(output, time, theirs, return_dict=False, **drawn)[0]
        x0 = table.by_latent[place] * mine + table.by_output[place] * output.double()
        b = (table.b if place else table.b_first)[place]
        noise = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(place)).double()
        mine = table.a[place] * mine + b * x0 + table.c[place] * before + table.d[place] * noise
        before = x0
        torch.testing.assert_close(theirs.double(), mine, rtol=1e-4, atol=1e-4)
