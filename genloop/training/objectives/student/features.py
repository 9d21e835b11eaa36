"""A smaller UNet learns from a larger one of the same latents: BK-SDM (Kim et al. 2023), KOALA (Lee et al. 2023).

The loss of a row is task + output + features: squared errors against the noise, against the teacher's output, and of
the outputs of self-attention layers, which tell most of what a teacher knows of its layout. The student is the base
without some layers, or a folder that is smaller than its teacher; layers are compared under the teacher's names.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from genloop.models.diffusion.config import DiffusionFolder
from genloop.models.diffusion.pruning import kept_layers
from genloop.training.objectives.student.base import LatentRows, StudentObjective
from genloop.training.objectives.student.frozen import FrozenUnet, check_unet_alone

ATTENTION = ".attn1"


class Features(StudentObjective):
    """Metrics `task`, `output` and `features` are the terms without their weights."""

    held_out_parts = ("task", "output", "features")

    @classmethod
    def check(cls, keys: Any, base: DiffusionFolder) -> None:
        """All weights of the UNet learn, and what is to be kept is there."""
        check_unet_alone(keys)
        if keys.weights != "full":
            raise ValueError("weights: objective=features trains a smaller UNet, which needs weights=full")
        own = keys.features
        if own.prunes:
            kept_layers(base.unet, own.down, own.up, mid=own.mid, key="features")
        elif own.teacher is None:
            raise ValueError("features: name a teacher, or what the student keeps of the base (down, up, mid)")

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        assert self.model.teacher is not None, "build_student sets it"
        self.teacher = FrozenUnet(self.model.teacher.unet)
        unet: Any = self.model.unet
        names = self.model.teacher.names
        theirs = dict(self.teacher.unet.named_modules())
        ours = {name: module for name, module in unet.named_modules() if name.endswith(ATTENTION)}
        self._pairs = {name: (module, theirs[names(name)]) for name, module in ours.items() if names(name) in theirs}

    def row_losses(self, batch: LatentRows) -> tuple[Tensor, Mapping[str, Tensor]]:
        """(B,), and the three terms (B,) each."""
        schedule, texts, own = self.model.schedule, self.texts(batch), self.keys.features
        noised = schedule.noised(batch.latents, batch.noise, batch.timesteps)
        given = noised, batch.timesteps, texts, batch.time_ids
        with recorded({name: pair[1] for name, pair in self._pairs.items()}) as theirs:
            wanted = self.teacher.predict(self.model, *given)
        with recorded({name: pair[0] for name, pair in self._pairs.items()}) as ours:
            output = self.model.predict(*given)
        target = schedule.target(batch.latents, batch.noise, batch.timesteps)
        features = [_error(ours[name], theirs[name]) for name in self._pairs]
        terms = {
            "task": schedule.weights(batch.timesteps, self.keys.snr_gamma) * _error(output, target),
            "output": _error(output, wanted),
            "features": torch.stack(features).mean(0) if features else torch.zeros(len(output), device=output.device),
        }
        weights = {"task": own.task_weight, "output": own.output_weight, "features": own.feature_weight}
        return torch.stack([weights[name] * term for name, term in terms.items()]).sum(0), terms


@contextmanager
def recorded(modules: Mapping[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    """What modules give while the body runs, by name."""
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        return lambda module, inputs, output: found.__setitem__(name, output)

    handles = [module.register_forward_hook(keep(name)) for name, module in modules.items()]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _error(found: Tensor, wanted: Tensor) -> Tensor:
    """(B, ...) twice -> mean squared errors (B,) float32"""
    return (found.float() - wanted.float()).square().flatten(1).mean(1)
