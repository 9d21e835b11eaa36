"""A generator in no table: diffusion over the denoiser whose answers are known."""

from typing import Any, ClassVar

from genloop.factories import Resolve
from genloop.sampling.diffusion.sampler import DiffusionSampler
from genloop.sampling.diffusion.settings import DiffusionSampling
from genloop.sampling.diffusion.solvers import second_order
from genloop.sampling.settings import GeneratorMaker, Runtime
from tests.worlds.gaussian_denoiser import GaussianDenoiser, levels


class GaussianGenerator(GeneratorMaker):
    """DPM-Solver++ 2M over known answers."""

    Sampling = DiffusionSampling
    corrects: ClassVar[bool] = False

    @classmethod
    def load(cls, options: Any, sampling: Any, resolve: Resolve, runtime: Runtime) -> DiffusionSampler:
        return DiffusionSampler(
            GaussianDenoiser(),
            lambda n: second_order(levels(n), "epsilon"),
            sampling,
            slots=runtime.slots,
            before_step=runtime.before_step,
        )
