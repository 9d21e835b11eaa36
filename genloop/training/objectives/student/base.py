"""What all trainings of a student share: batches of one bucket, keyed noise, dropped captions, a validation loss.

A step's batch is a function of (seed, step): its rows by `BucketOrder`, timesteps and dropped captions from one
generator of the step, the noise of a row from one of its own. B = rows, C, h, w = channels and sides of a latent.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from genloop.data.latents.buckets import BucketOrder
from genloop.distributed import World
from genloop.models.diffusion.config import DiffusionFolder
from genloop.models.diffusion.student import Student, Texts
from genloop.records import Seed
from genloop.sampling.noise import gaussian
from genloop.stats.resampling import bootstrap, mean_of_strata
from genloop.training.loading import mapped
from genloop.training.objectives.student.data import EMBEDDINGS, POOLED, LearningData
from genloop.training.reductions import sum_over_ranks
from genloop.training.task import Loss, Objective, Plan

VAL_LOSS = "val_loss"


@dataclass(frozen=True, slots=True)
class NoisyRow:
    """One row of a step: its sample, where it is in the batch, the timestep, whether its caption is dropped."""

    position: int
    step: int
    place: int
    timestep: int
    is_dropped: bool


@dataclass(frozen=True, slots=True)
class LatentRows:
    """A batch; either embeddings or captions, which are read while the loss is computed."""

    latents: Tensor  # (B, C, h, w), of which noise makes the input
    noise: Tensor  # (B, C, h, w)
    timesteps: Tensor  # (B,) int64
    time_ids: Tensor  # (B, 6), see `Student.predict`
    embeddings: Tensor | None  # (B, T, D)
    pooled: Tensor | None  # (B, P), of SDXL
    captions: tuple[str | None, ...]


class StudentObjective(Objective[NoisyRow, LatentRows]):
    """Subclasses say what a row loses: `row_losses`."""

    model: Student
    held_out_parts: ClassVar[tuple[str, ...]] = ()  # of `row_losses`: what is measured on held-out rows too
    decodes: ClassVar[bool] = False  # whether losses look at pixels, so that the VAE is needed in every step

    @classmethod
    def check(cls, keys: Any, base: DiffusionFolder) -> None:
        """Refuse keys of the job that do not fit this objective: ValueError."""

    def __init__(self, model: Student, data: LearningData, keys: Any, held_out: Sequence[int], world: World) -> None:
        """keys: the job's config; held_out: positions that are not trained on."""
        self.model, self.data, self.keys, self.world = model, data, keys, world
        self.seed, self.batch_size = keys.seed, keys.train.batch_size
        self.after_every = keys.eval_every if held_out else 0
        self._held_out = list(held_out)
        kept = ~np.isin(data.examples.source, self._held_out)  # neither them nor their mirror images
        rows = np.flatnonzero(kept)
        self._order = self._order_of(rows)
        self._captioned = np.arange(len(kept))  # by position: the one whose caption it has
        if keys.shuffle_captions:
            self._captioned[rows] = np.random.default_rng([self.seed, 6]).permutation(rows)

    @property
    def num_held_out(self) -> int:
        """Samples that are not trained on."""
        return len(self._held_out)

    def plan(self, step: int) -> Plan[NoisyRow]:
        """Rows, timesteps and dropped captions of a step; each row weighs 1."""
        rng = np.random.default_rng([self.seed, 1, step])
        timesteps = self.draw_timesteps(rng, self.batch_size)
        dropped = rng.random(self.batch_size) < self.keys.drop_captions
        rows = zip(self._order.rows(step), timesteps.tolist(), dropped.tolist(), strict=True)
        items = [NoisyRow(position, step, place, *more) for place, (position, *more) in enumerate(rows)]
        return Plan(items, float(self.batch_size))

    def draw_timesteps(self, rng: np.random.Generator, rows: int) -> np.ndarray:
        """(rows,) int64, uniform over the schedule."""
        return rng.integers(self.model.schedule.num_timesteps, size=rows)

    def load(self, items: Sequence[NoisyRow], plan: Plan[NoisyRow]) -> LatentRows:
        """Look latents and texts up, draw noise."""
        latents = torch.stack([self._latent(item) for item in items])
        noise = torch.stack([self._noise(item, latents.shape[1:], "noise") for item in items])
        captions: tuple[str | None, ...] = ()
        spoken = [None if item.is_dropped else int(self._captioned[item.position]) for item in items]
        texts = [text for text in map(self.data.text, spoken) if text is not None]
        if not texts:
            captions = tuple(None if position is None else self._caption(position) for position in spoken)
        return LatentRows(
            latents,
            noise,
            torch.tensor([item.timestep for item in items]),
            torch.tensor([self._time_ids(item.position) for item in items]),
            stacked(texts, EMBEDDINGS),
            stacked(texts, POOLED),
            captions,
        )

    def loss(self, batch: LatentRows) -> Loss:
        """The sum of `row_losses`, and of what else they count."""
        losses, parts = self.row_losses(batch)
        sums = {name: float(values.detach().sum()) for name, values in parts.items()}
        return Loss(losses.sum(), float(len(losses)), sums)

    @abstractmethod
    def row_losses(self, batch: LatentRows) -> tuple[Tensor, Mapping[str, Tensor]]:
        """(B,) float32 with a gradient, and more numbers of the rows, (B,) each, for metrics.jsonl."""

    def predicted(self, batch: LatentRows) -> tuple[Tensor, Tensor, Tensor]:
        """x_t, what the network says of it, both (B, C, h, w), and the mean squared errors of that (B,)."""
        schedule = self.model.schedule
        noised = schedule.noised(batch.latents, batch.noise, batch.timesteps)
        output = self.model.predict(noised, batch.timesteps, self.texts(batch), batch.time_ids)
        target = schedule.target(batch.latents, batch.noise, batch.timesteps)
        return noised, output, (output - target).square().mean(dim=(1, 2, 3))

    def texts(self, batch: LatentRows) -> Texts:
        """The embeddings of a batch, as computed once or by the text encoders as they are."""
        if batch.embeddings is None:
            return self.model.read(batch.captions)
        return Texts(batch.embeddings, batch.pooled)

    def before_training(self, step: int) -> Mapping[str, Any] | None:
        """The validation loss of step 0."""
        return self._validate() if self.after_every and not step else None

    def after_step(self, step: int) -> Mapping[str, Any] | None:
        """The validation loss."""
        return self._validate()

    @torch.no_grad()
    def _validate(self) -> dict[str, float]:
        """Means over the held-out rows, with bootstrap intervals over rows, and the number of rows.

        Each row keeps its timestep and its noise; timesteps are spread evenly over the schedule. Beside the loss the
        parts in `held_out_parts` are measured.
        """
        num, total = len(self._held_out), self.model.schedule.num_timesteps
        rows = [
            NoisyRow(position, 0, place, (2 * place + 1) * total // (2 * num), False)
            for place, position in enumerate(self._held_out)
        ]
        values = np.zeros((1 + len(self.held_out_parts), num))
        device = next(self.model.parameters()).device
        for row in rows[self.world.rank :: self.world.world_size]:
            batch = mapped(self.load([row], Plan((), 1.0)), lambda tensor: tensor.to(device))
            losses, parts = self.row_losses(batch)
            values[:, row.place] = [float(losses), *(float(parts[name]) for name in self.held_out_parts)]
        values = sum_over_ranks(values, self.world)
        found: dict[str, float] = {"val_rows": num}
        strata = np.zeros(num, dtype=np.int64)
        for name, of_rows in zip((VAL_LOSS, *(f"val_{part}" for part in self.held_out_parts)), values, strict=True):
            mean, low, high = bootstrap(mean_of_strata(of_rows, np.ones(num), strata), strata, self.seed)[0]
            found |= {name: mean, f"{name}_low": low, f"{name}_high": high}
        return found

    def _order_of(self, positions: np.ndarray) -> BucketOrder:
        sizes = [self.data.examples[position].crop.size for position in positions]
        by_size = sorted(zip(sizes, positions.tolist()))
        buckets = [np.array([p for _, p in group]) for _, group in groupby(by_size, key=lambda pair: pair[0])]
        return BucketOrder(buckets, self.data.examples.shard_of, seed=self.seed, batch_size=self.batch_size)

    def _latent(self, item: NoisyRow) -> Tensor:
        return self._drawn(item, *self.data.latent(item.position))

    def _drawn(self, item: NoisyRow, mean: Tensor, spread: Tensor | None) -> Tensor:
        return mean if spread is None else mean + spread * self._noise(item, mean.shape, "latent")

    def _noise(self, item: NoisyRow, shape: Sequence[int], purpose: str) -> Tensor:
        key = Seed(self.seed, item.position, 0, item.place)
        return gaussian(key, tuple(shape), step=item.step, round=0, purpose=f"train/{purpose}")

    def _caption(self, position: int) -> str:
        return self.data.examples.captions[self.data.examples[position].caption]

    def _time_ids(self, position: int) -> list[float]:
        """Of SDXL's micro-conditioning: original height and width, corner, height and width; see `Student.predict`."""
        example = self.data.examples[position]
        original, crop = example.original, example.crop
        return [*map(float, (original.height, original.width, crop.top, crop.left, crop.size.height, crop.size.width))]


def stacked(texts: Sequence[Mapping[str, np.ndarray]], name: str) -> Tensor | None:
    """Arrays of a name, stacked; None where there are none."""
    arrays = [text[name] for text in texts if name in text]
    return torch.from_numpy(np.stack(arrays)) if arrays else None
