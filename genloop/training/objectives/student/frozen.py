"""The UNet as it was before the training, beside the one that learns: the same one without its adapters, or a copy."""

import copy
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor

from genloop.models.diffusion.student import Student, Texts
from genloop.registry import require


def check_unet_alone(keys: Any) -> None:
    """ValueError where text encoders are to learn: the base is asked about the embeddings that the student sees."""
    if tuple(keys.parts) != ("unet",):
        raise ValueError(f"parts: objective={keys.objective} trains the UNet alone, found {', '.join(keys.parts)}")


class FrozenUnet:
    """Answers without a gradient. `unet` None: the student's own, its adapters scaled to nothing meanwhile."""

    def __init__(self, unet: Any = None) -> None:
        self.unet = unet

    @classmethod
    def of(cls, student: Student, weights: Literal["lora", "full"]) -> "FrozenUnet":
        """The base of a student that has not learned yet."""
        unet: Any = student.unet
        return cls() if weights == "lora" else cls(copy.deepcopy(unet).requires_grad_(False).eval())

    @torch.no_grad()
    def predict(self, student: Student, noised: Tensor, timesteps: Tensor, texts: Texts, time_ids: Tensor) -> Tensor:
        """See `Student.predict`."""
        with self._without_adapters(student):
            return student.predict(noised, timesteps, texts, time_ids, unet=self.unet)

    def _without_adapters(self, student: Student) -> AbstractContextManager[object]:
        if self.unet is not None:
            return nullcontext()
        found: AbstractContextManager[object] = require("peft.helpers", "train").rescale_adapter_scale(
            student.unet, 0.0
        )
        return found
