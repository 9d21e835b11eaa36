"""Flow matching for the connector of Qwen2vl-Flux: from a picture's image tokens back to the picture.

The published checkpoint came without its training; this is Flux's own loss (Esser et al. 2024): for z_t = (1 - t) z +
t e the transformer, conditioned on the connector's tokens, predicts e - z; t is the logistic of a normal number.
Qwen2-VL and the VAE never learn, so tokens and latents are computed once. B = rows, n = tokens of a latent, C = their
width, N = image tokens, Q = their width.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from genloop.data.order import Order
from genloop.distributed import World
from genloop.models.flux_edit.embedder import Connector
from genloop.records import Seed
from genloop.sampling.noise import gaussian
from genloop.training.loading import mapped
from genloop.training.reductions import sum_over_ranks
from genloop.training.task import Loss, Objective, Plan


class ConnectedFlux(nn.Module):
    """A connector in front of a transformer; what does not learn has no gradient."""

    pooled: Tensor

    def __init__(self, connector: Connector, transformer: Any, pooled: Tensor, *, guidance: float) -> None:
        super().__init__()
        self.connector, self.transformer, self.guidance = connector, transformer, guidance
        self.register_buffer("pooled", pooled, persistent=False)  # (P,) of CLIP's empty text

    def forward(self, noised: Tensor, times: Tensor, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """(B, n, C), (B,) in [0, 1], (B, N, Q), rows and columns of n -> (B, n, C)"""
        rows, columns = grid
        places = torch.zeros(rows, columns, 3, device=noised.device)
        places[..., 1], places[..., 2] = torch.arange(rows)[:, None], torch.arange(columns)[None, :]
        transformer: Any = self.transformer
        guided = transformer.config.guidance_embeds
        found: Tensor = transformer(
            hidden_states=noised,
            encoder_hidden_states=self.connector(tokens),
            pooled_projections=self.pooled.to(noised).expand(len(noised), -1),
            timestep=times,
            img_ids=places.flatten(0, 1),
            txt_ids=torch.zeros(tokens.shape[1], 3, device=noised.device),
            guidance=torch.full_like(times, self.guidance) if guided else None,
            return_dict=False,
        )[0]
        return found


@dataclass(frozen=True, slots=True)
class FlowItem:
    """One row of a step: its picture, and what keys its noise."""

    position: int
    step: int
    place: int
    time: float


@dataclass(frozen=True, slots=True)
class FlowRows:
    """A batch."""

    latents: Tensor  # (B, n, C)
    noise: Tensor  # (B, n, C)
    times: Tensor  # (B,)
    tokens: Tensor  # (B, N, Q)


class FlowMatching(Objective[FlowItem, FlowRows]):
    """`read(position)` -> packed latents (n, C) and image tokens (N, Q) of a picture."""

    model: ConnectedFlux

    def __init__(
        self,
        model: ConnectedFlux,
        read: Callable[[int], tuple[Tensor, Tensor]],
        sizes: Sequence[int],
        grid: tuple[int, int],
        *,
        seed: int,
        batch_size: int,
        num_held_out: int,
        eval_every: int,
        world: World,
    ) -> None:
        """sizes: pictures of each shard, the last `num_held_out` of which are for the validation loss alone."""
        self.model, self.read, self.grid, self.world = model, read, grid, world
        self.seed, self.batch_size, self.num_held_out = seed, batch_size, num_held_out
        self.num_learned = sum(sizes) - num_held_out
        self.after_every = eval_every if num_held_out else 0
        self._order = Order([self.num_learned], seed)

    def plan(self, step: int) -> Plan[FlowItem]:
        """Pictures and times of a step; each weighs 1."""
        rng = np.random.default_rng([self.seed, 1, step])
        times = 1 / (1 + np.exp(-rng.standard_normal(self.batch_size)))
        rows = self._order.rows(step, self.batch_size)
        items = [FlowItem(row, step, place, time) for place, (row, time) in enumerate(zip(rows, times.tolist()))]
        return Plan(items, float(self.batch_size))

    def load(self, items: Sequence[FlowItem], plan: Plan[FlowItem]) -> FlowRows:
        """Look latents and tokens up, draw noise."""
        latents, tokens = zip(*(self.read(item.position) for item in items), strict=True)
        noise = [self._noise(item, latent.shape) for item, latent in zip(items, latents)]
        times = torch.tensor([item.time for item in items], dtype=torch.float32)
        return FlowRows(torch.stack(latents), torch.stack(noise), times, torch.stack(tokens))

    def loss(self, batch: FlowRows) -> Loss:
        """The sum over rows of the mean squared error of the predicted velocity."""
        losses = self._row_losses(batch)
        return Loss(losses.sum(), float(len(losses)))

    def before_training(self, step: int) -> Mapping[str, Any] | None:
        """The validation loss of step 0."""
        return self._validate() if self.after_every and not step else None

    def after_step(self, step: int) -> Mapping[str, Any] | None:
        """The validation loss."""
        return self._validate()

    def _row_losses(self, batch: FlowRows) -> Tensor:
        times = batch.times[:, None, None]
        noised = (1 - times) * batch.latents + times * batch.noise
        velocity = self.model(noised, batch.times, batch.tokens, self.grid).float()
        return (velocity - (batch.noise - batch.latents)).square().mean((1, 2))

    @torch.no_grad()
    def _validate(self) -> dict[str, float]:
        """The mean over the held-out pictures, each with a time and noise that never change, and its standard error."""
        num, device = self.num_held_out, next(self.model.parameters()).device
        values = np.zeros((1, num))
        for place in range(num)[self.world.rank :: self.world.world_size]:
            item = FlowItem(self.num_learned + place, 0, place, (place + 0.5) / num)
            batch = mapped(self.load([item], Plan((), 1.0)), lambda tensor: tensor.to(device))
            values[0, place] = float(self._row_losses(batch))
        (found,) = sum_over_ranks(values, self.world)
        error = {"val_loss_error": float(found.std(ddof=1)) / math.sqrt(num)} if num > 1 else {}
        return {"val_rows": num, "val_loss": float(found.mean()), **error}

    def _noise(self, item: FlowItem, shape: Sequence[int]) -> Tensor:
        key = Seed(self.seed, item.position, 0, item.place)
        return gaussian(key, tuple(shape), step=item.step, round=0, purpose="train/flow")
