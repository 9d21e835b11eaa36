"""Images of fixed prompts and fixed noise, drawn again and again while a model is trained, and what is said of them.

RUN/previews/step-0000500/0003.png is prompt 3; scores.json beside the images is written last, so where it is the look
is whole. Nothing random is shared with the training: noise is keyed, weights are only read.
P = prompts.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genloop.data.images import encode_png, to_uint8
from genloop.distributed import World
from genloop.protocols import Judge, Sampler
from genloop.reading import read_json_object
from genloop.records import Prompt, Seed
from genloop.rundir import BadInput, write_atomic, write_json
from genloop.training.guards.image_statistics import STATISTICS, image_statistics
from genloop.training.reductions import sum_over_ranks

FOLDER, SCORES = "previews", "scores.json"
Table = dict[str, list[float]]  # measure -> its value of each prompt (P,); NaN where a judge gave none


def preview_folder(run: Path, step: int) -> Path:
    """Where the images of a step lie."""
    return run / FOLDER / f"step-{step:07d}"


class Previews:
    """Draws, judges and measures the images; ranks share the prompts."""

    def __init__(
        self,
        run: Path,
        world: World,
        make_sampler: Callable[[], Sampler[Any]],
        prompts: Sequence[Prompt],
        judges: Mapping[str, Judge],
        *,
        seed: int = 0,
    ) -> None:
        """make_sampler: called at each look; what the sampler computes before its first step is of the weights then."""
        self.run, self.world, self.prompts, self._make_sampler = run, world, list(prompts), make_sampler
        self.judges, self.seed = judges, seed
        self.names = [*STATISTICS, *judges]

    def look(self, step: int) -> Table:
        """Draw and measure all images as the model is now; called on all ranks, of which each writes its own images."""
        folder = preview_folder(self.run, step)
        folder.mkdir(parents=True, exist_ok=True)
        own = range(len(self.prompts))[self.world.rank :: self.world.world_size]
        values = np.zeros((len(self.names), len(self.prompts)))
        sampler = self._make_sampler()
        for start in range(0, len(own), sampler.slots):
            part = list(own[start : start + sampler.slots])
            images = self._draw(sampler, [self.prompts[place] for place in part])
            for place, image in zip(part, images, strict=True):
                write_atomic(folder / f"{place:04d}.png", encode_png(image))
            values[:, part] = self._measure([self.prompts[place] for place in part], images)
        values = sum_over_ranks(values, self.world)
        table: Table = dict(zip(self.names, values.tolist(), strict=True))
        if self.world.rank == 0:
            shown = {name: [None if math.isnan(v) else v for v in row] for name, row in table.items()}
            texts = [prompt.text for prompt in self.prompts]
            write_json(folder / SCORES, {"step": step, "prompts": texts, "measures": shown})
        return table

    def read(self, step: int) -> Table:
        """What `look` found at a step before; BadInput where it is not there."""
        path = preview_folder(self.run, step) / SCORES
        try:
            found = read_json_object(path)["measures"]
            table = {name: [math.nan if v is None else float(v) for v in found[name]] for name in self.names}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise BadInput(f"{path}: cannot be read ({type(error).__name__}); alarms compare images with it") from None
        if any(len(row) != len(self.prompts) for row in table.values()):
            raise BadInput(f"{path}: is not about the {len(self.prompts)} prompts of this run")
        return table

    def _draw(self, sampler: Sampler[Any], prompts: Sequence[Prompt]) -> np.ndarray:
        """-> (P, H, W, 3) uint8"""
        state = sampler.start(prompts, [Seed(self.seed, prompt.index, 0, 0) for prompt in prompts])
        while min(state.steps) < max(state.lengths):
            state = sampler.step(state)
        return to_uint8(sampler.decode(state.content))

    def _measure(self, prompts: Sequence[Prompt], images: np.ndarray) -> np.ndarray:
        """-> (measures, P)"""
        looks = [list(image_statistics(image).values()) for image in images]
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
        with torch.no_grad():
            answers = [judge.p_yes("outcome", prompts, pixels).tolist() for judge in self.judges.values()]
        return np.concatenate([np.array(looks).T, np.array(answers).reshape(len(answers), len(prompts))])
