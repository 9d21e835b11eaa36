"""Restyled images equal those of diffusers' image-to-image pipelines; strength says how much of an image stays."""

from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from genloop.data.image_reader import read_image
from genloop.models.diffusion.config import check_diffusion_folder
from genloop.models.diffusion.fresh import save_pipeline
from genloop.models.diffusion.load import load_diffusion
from genloop.models.unet.build import fresh_unet
from genloop.models.unet.config import UnetSizes
from genloop.records import Prompt, Seed
from genloop.registry import require
from genloop.sampling.diffusion.maker import DiffusionGenerator, DiffusionOptions
from genloop.sampling.diffusion.restyle import RestylingSampler, fit, restyling
from genloop.sampling.diffusion.sampler import DiffusionSampler
from genloop.sampling.diffusion.settings import DiffusionSampling
from genloop.sampling.diffusion.tables import build_scheduler, scheduler_table
from genloop.sampling.modes import GivenImage, RestyleMode
from genloop.sampling.settings import Runtime
from genloop.search.image import ImageSearch, Steps
from genloop.search.image import Path as SearchPath
from genloop.search.schedule import Scheduler
from tests.runs import ROOT
from tests.worlds.tiny_diffusion import PIXELS, SCHEDULE, STEPS, write_pipeline

PROMPTS = [Prompt(0, "a ring"), Prompt(1, "two stars left of a red square")]
SEEDS = [Seed(1, prompt.index, 0, 0) for prompt in PROMPTS]
IMAGES = [read_image(ROOT / "configs/prompts/shapes_images" / f"{prompt.index}.png") for prompt in PROMPTS]
MIDDLES = [fit(image, PIXELS, PIXELS) for image in IMAGES]
PIPELINES = {"sdxl": "StableDiffusionXLImg2ImgPipeline"}


@pytest.fixture(scope="module", params=["sd", "sdxl", "depthwise"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline of diffusers, or one with a UNet of depthwise blocks as `train_diffusion` leaves it."""
    place = tmp_path_factory.mktemp("pipelines")
    stock = write_pipeline(place / request.param, xl=request.param == "sdxl")
    if request.param != "depthwise":
        return stock
    base = check_diffusion_folder(stock)
    unet = fresh_unet(UnetSizes(channels=(8, 16), layers=1, heads=2, num_groups=4).unet_config(base.unet), seed=0)
    for number, parameter in enumerate(unet.parameters()):  # fresh blocks do nothing
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
    save_pipeline(load_diffusion(base, grid=base.grid(None, None), unet=unet).pipeline, place / "small")
    return place / "small"


class Generators:
    """The noise of a torch generator a seed, as a pipeline draws it."""

    def __init__(self) -> None:
        self.of = {seed: torch.Generator().manual_seed(seed.prompt) for seed in SEEDS}

    def __call__(self, seed: Seed, shape: tuple[int, ...], **key: Any) -> Tensor:
        return torch.randn((1, *shape), generator=self.of[seed])[0]


@lru_cache
def loaded(folder: Path) -> DiffusionSampler:
    settings = DiffusionSampling(steps=STEPS, scheduler="ddim", guidance_scale=5)
    return DiffusionGenerator.load(DiffusionOptions(pipeline=str(folder)), settings, Path, Runtime())


def text_sampler(folder: Path, scheduler: Any = "ddim") -> DiffusionSampler:
    config, known = {"_class_name": "DDIMScheduler", **SCHEDULE}, loaded(folder)
    return DiffusionSampler(known.model, partial(scheduler_table, config, scheduler), known.settings)


def restyled(sampler: DiffusionSampler, strength: float) -> RestylingSampler:
    options = RestyleMode.Options(images=Path("images"), strength=strength)
    found, _ = restyling(sampler, options, lambda index: GivenImage(IMAGES[index], None))
    assert isinstance(found, RestylingSampler)
    return found


def walked(sampler: DiffusionSampler, state: Any = None) -> Tensor:
    state = sampler.start(PROMPTS, SEEDS) if state is None else state
    while state.steps < state.lengths:
        state = sampler.step(state)
    content: Tensor = state.content
    return content


@lru_cache
def stock(folder: Path) -> Any:
    """The pipeline of diffusers for images."""
    diffusers = require("diffusers")
    name = PIPELINES.get(folder.name, "StableDiffusionImg2ImgPipeline")
    parts = diffusers.DiffusionPipeline.from_pretrained(folder).components
    unused = {} if folder.name in PIPELINES else {"requires_safety_checker": False}
    pipe = getattr(diffusers, name)(**parts, **unused)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def theirs(folder: Path, scheduler: str, strength: float) -> np.ndarray:
    """(B, H, W, 3) in [0, 1] from the pipeline's own loop, which is given the latents: it would draw from the VAE's."""
    pipe = stock(folder)
    pipe.scheduler = build_scheduler({"_class_name": "DDIMScheduler", **SCHEDULE}, scheduler)
    pixels = pipe.image_processor.preprocess(np.stack(MIDDLES) / 255)
    with torch.inference_mode():
        latents = pipe.vae.encode(pixels.float()).latent_dist.mode() * pipe.vae.config.scaling_factor
    found: np.ndarray = pipe(
        [prompt.text for prompt in PROMPTS],
        image=latents,
        strength=strength,
        num_inference_steps=STEPS,
        guidance_scale=5,
        generator=list(Generators().of.values()),
        output_type="np",
    ).images
    return found


@pytest.mark.parametrize("folder", ["sd"], indirect=True)
def test_encoding_the_given_image_is_counted_once_for_all_candidates(folder: Path) -> None:
    def choose(image: ImageSearch) -> Steps[SearchPath]:
        paths = image.start(3)
        yield from image.walk(paths)
        return paths[0]

    for strength, is_encoded in ((0.5, True), (1.0, False)):  # from noise alone nothing is encoded
        sampler = restyled(text_sampler(folder), strength)
        (choice,) = Scheduler(sampler, None, choose).run([(PROMPTS[0], 0)], 0)
        drawn = choice.cost.generator_steps * sampler.flops_per_step + sampler.flops_per_decode
        encoded = restyled(text_sampler(folder), 0.5).flops_to_begin if is_encoded else 0.0
        assert choice.cost.flops == drawn + encoded and (encoded > 0) == is_encoded


@pytest.mark.parametrize(("scheduler", "strength"), [("ddim", 0.5), ("euler", 0.8), ("dpmpp_2m", 0.8), ("lcm", 0.7)])
def test_images_equal_those_of_the_pipeline(folder: Path, scheduler: Any, strength: float) -> None:
    sampler = restyled(text_sampler(folder, scheduler), strength)
    sampler.noise = Generators()
    found = sampler.decode(walked(sampler)).permute(0, 2, 3, 1).numpy()
    wanted = theirs(folder, scheduler, strength)
    assert wanted.std() > 0.01  # there is something to see
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1 / 255)


def test_at_full_strength_nothing_of_the_image_is_left(folder: Path) -> None:
    sampler = text_sampler(folder)
    assert torch.equal(walked(restyled(sampler, 1.0)), walked(sampler))


def test_a_weaker_strength_stays_nearer_to_the_image(folder: Path) -> None:
    sampler = text_sampler(folder)
    origin = restyled(sampler, 0.5).start(PROMPTS, SEEDS).guess
    moves = [(walked(restyled(sampler, s)) - origin).square().mean().item() for s in (0.2, 0.6, 1.0)]
    assert moves == sorted(moves)


def test_a_branch_before_the_first_step_is_the_path_of_its_seed(folder: Path) -> None:
    sampler = restyled(text_sampler(folder), 0.6)
    others = [Seed(1, seed.prompt, 0, 1) for seed in SEEDS]
    branched = sampler.branch(sampler.start(PROMPTS, SEEDS), others)
    assert torch.equal(walked(sampler, branched), walked(sampler, sampler.start(PROMPTS, others)))
    assert not torch.equal(walked(sampler, branched), walked(sampler))


@pytest.mark.parametrize("steps", [1, 7, 30, 50])
def test_steps_are_as_many_as_those_of_the_pipeline(steps: int) -> None:
    pipeline = require("diffusers").StableDiffusionImg2ImgPipeline
    pipe = object.__new__(pipeline)
    object.__setattr__(pipe, "scheduler", build_scheduler({"_class_name": "DDIMScheduler", **SCHEDULE}, "ddim"))
    pipe.scheduler.set_timesteps(steps)
    for strength in np.linspace(0.01, 1, 100).round(2).tolist():
        _, wanted = pipeline.get_timesteps(pipe, steps, strength, "cpu")
        options = RestyleMode.Options(images=Path("images"), strength=strength)
        if wanted:
            assert options.num_steps(steps) == wanted
        else:
            with pytest.raises(ValueError, match="strength"):
                options.num_steps(steps)


@pytest.mark.parametrize("size", [(24, 24), (100, 30), (17, 61)])
def test_images_of_any_size_fill_what_is_drawn(size: tuple[int, int]) -> None:
    image = np.zeros((*size, 3), np.uint8)
    height, width = size
    image[height // 2 - 4 : height // 2 + 4, width // 2 - 4 : width // 2 + 4] = 255
    found = fit(image, 16, 24)
    assert found.shape == (16, 24, 3) and found[7:9, 11:13].min() > 250, "the middle stays the middle"
