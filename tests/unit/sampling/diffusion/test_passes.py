"""Passes that always have the same number of paths: the numbers of a path are its own, to the last bit."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from genloop.records import Prompt, Seed
from genloop.sampling.diffusion.maker import DiffusionGenerator, DiffusionOptions
from genloop.sampling.diffusion.passes import check_passes
from genloop.sampling.diffusion.sampler import DiffusionSampler
from genloop.sampling.diffusion.settings import DiffusionSampling
from genloop.sampling.settings import Runtime
from tests.worlds.gaussian_denoiser import GaussianDenoiser
from tests.worlds.tiny_diffusion import write_pipeline

TEXTS = ["a ring", "two stars left of a red square", "a blue heart", "a ring", "three crosses"]
PROMPTS = [Prompt(number, text) for number, text in enumerate(TEXTS)]
SEEDS = [Seed(1, prompt.index, 0, 0) for prompt in PROMPTS]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pipeline(tmp_path_factory.mktemp("pipelines") / "sdxl", xl=True)


def sampler(folder: Path, paths: int, slots: int = 64) -> DiffusionSampler:
    options = DiffusionOptions(pipeline=str(folder), paths_per_forward=paths)
    settings = DiffusionSampling(steps=3, scheduler="ddim", guidance_scale=4)
    return DiffusionGenerator.load(options, settings, Path, Runtime(slots=slots))


def drawn(one: DiffusionSampler, rows: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Latents, pixels and confidences of some paths."""
    state = one.start([PROMPTS[row] for row in rows], [SEEDS[row] for row in rows])
    for _ in range(one.num_steps):
        state = one.step(state)
    return state.content, one.decode(state.content), one.confidence(state)


def test_a_path_does_not_depend_on_what_fills_its_pass(folder: Path) -> None:
    one = sampler(folder, 3)
    whole, order = drawn(one, [0, 1, 2, 3, 4]), [4, 2, 0]
    for rows in ([0], order, [3, 1]):
        for part, everything in zip(drawn(one, rows), whole):
            assert torch.equal(part, everything[rows])


def test_numbers_of_other_passes_differ_by_rounding_alone(folder: Path) -> None:
    together, alone = (drawn(sampler(folder, paths), [0, 1, 2, 3, 4]) for paths in (4, 1))
    for ours, theirs in zip(together, alone):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


class Placed(GaussianDenoiser):
    """Its rounding depends on where a row stands."""

    def __init__(self, where: str) -> None:
        self.where = where

    def predict(self, latents: Tensor, *rest: object) -> Tensor:
        found = super().predict(latents, *rest)  # type: ignore[arg-type]
        return self.moved(found) if self.where == "predict" else found

    def decode(self, latents: Tensor) -> Tensor:
        found = super().decode(latents)
        return self.moved(found) if self.where == "decode" else found

    def moved(self, values: Tensor) -> Tensor:
        return values * (1 + 1e-6 * (torch.arange(len(values)).view(-1, 1, 1, 1) % 3 == 2))


@pytest.mark.parametrize("where", ["predict", "decode"])
def test_a_machine_whose_rounding_depends_on_the_place_is_refused(where: str) -> None:
    for paths in (1, 2):
        check_passes(Placed(where) if where == "decode" else GaussianDenoiser(), paths, is_guided=True)
    with pytest.raises(ValueError, match=r"generator\.options\.paths_per_forward: 4 "):
        check_passes(Placed(where), 4, is_guided=True)
