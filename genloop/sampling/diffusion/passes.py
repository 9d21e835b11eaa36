"""Passes of a fixed number of paths: a CPU's kernels round as the shape of a pass has it, whatever stands in it.

P = paths of a pass, B = rows.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from genloop.models.diffusion.denoiser import Denoiser


def filled(rows: Sequence[int], paths: int) -> list[int]:
    """The rows of a pass; where there are fewer than `paths` the first one comes again."""
    return [*rows, *[rows[0]] * (paths - len(rows))]


@torch.inference_mode()
def check_passes(model: Denoiser, paths: int, *, is_guided: bool) -> None:
    """ValueError where a path's numbers depend on its place in a pass of so many, to the last bit."""
    draws = torch.Generator().manual_seed(0)
    latents = torch.randn(paths, model.channels, *model.grid, generator=draws).to(model.device)
    timesteps = torch.linspace(1, 999, paths).to(model.device)
    condition, factors = model.encode(""), (1, 2) if is_guided else (1,)

    def predicted(factor: int) -> Callable[[Tensor], Tensor]:
        return lambda at: model.predict(
            latents[at].repeat(factor, 1, 1, 1), timesteps[at].repeat(factor), [condition] * factor * paths
        )

    for work in (*map(predicted, factors), lambda at: model.decode(latents[at])):
        wanted = work(torch.arange(paths)).unflatten(0, (-1, paths))
        for shift in range(1, paths):
            at = torch.arange(paths).roll(shift)
            if not torch.equal(work(at).unflatten(0, (-1, paths)), wanted[:, at]):
                raise ValueError(
                    f"generator.options.paths_per_forward: {paths} paths with {torch.get_num_threads()} threads: on "
                    "this CPU an image would depend on its place in a pass; use another number, threads=1, or 1"
                )
