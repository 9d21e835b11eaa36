"""A diffusion pipeline as a model that is trained: the UNet, with the text encoders where they learn too.

B = rows, C, h, w = channels and sides of a latent, T, D = tokens and width of a text, P = width of a pooled text.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from genloop.models.diffusion.config import TOKENIZERS, UNET, DiffusionFolder
from genloop.models.diffusion.load import PipelineDenoiser
from genloop.models.diffusion.schedule import NoiseSchedule


class Teacher(NamedTuple):
    """A UNet that a student learns from, and the name there of a layer of the student's."""

    unet: Any
    names: Callable[[str], str]


class Student(nn.Module):
    """The components that are trained are its children, by their names in the pipeline; the others stay outside."""

    teacher: Teacher | None = None  # not a child

    def __init__(self, denoiser: PipelineDenoiser, base: DiffusionFolder, components: Sequence[str]) -> None:
        super().__init__()
        self.base, self.components, self.schedule = base, tuple(components), NoiseSchedule(base.scheduler)
        self._denoiser = (denoiser,)  # not a child
        for component in {UNET, *components}:
            self.add_module(component, getattr(denoiser.pipeline, component))
        for component in components:
            getattr(self, component).requires_grad_(True)

    @property
    def denoiser(self) -> PipelineDenoiser:
        """The pipeline with the weights as they are now."""
        return self._denoiser[0]

    @property
    def learns_texts(self) -> bool:
        """Whether text encoders are trained, so that embeddings cannot be computed once."""
        return any(component in TOKENIZERS for component in self.components)

    def predict(
        self, noised: Tensor, timesteps: Tensor, texts: "Texts", time_ids: Tensor, *, unet: Any = None
    ) -> Tensor:
        """x_t (B, C, h, w) at timesteps (B,) under texts -> the network's output (B, C, h, w) float32.

        time_ids (B, 6): of SDXL, the original size, the corner of the crop and its size, heights before widths.
        unet: another one of the same inputs, by default the one that learns.
        """
        network: Any = self.unet if unet is None else unet
        dtype, more = network.dtype, dict[str, Any]()
        if texts.pooled is not None:
            more = {"added_cond_kwargs": {"text_embeds": texts.pooled.to(dtype), "time_ids": time_ids}}
        words = texts.embeddings.to(dtype)
        output = network(noised.to(dtype), timesteps, encoder_hidden_states=words, return_dict=False, **more)[0]
        return output.float()

    def read(self, captions: Sequence[str | None]) -> "Texts":
        """Captions as the text encoders are now; None: no caption."""
        found = self.denoiser.read(captions)
        return Texts(found.embeddings, found.pooled)

    def gradient_checkpointing_enable(self, options: Mapping[str, Any]) -> None:
        """Of every component, each by its library's own way."""
        for component in self.components:
            module: Any = getattr(self, component)
            if component == UNET:
                module.enable_gradient_checkpointing()
            else:
                module.gradient_checkpointing_enable(options)


class Texts:
    """Embeddings (B, T, D) and, of SDXL, the pooled ones (B, P)."""

    def __init__(self, embeddings: Tensor, pooled: Tensor | None) -> None:
        self.embeddings, self.pooled = embeddings, pooled


@torch.inference_mode()
def encode_pixels(denoiser: PipelineDenoiser, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(H, W, 3) uint8 -> mean and standard deviation of the latent, both (C, h, w) float32, scaled as in training."""
    vae = denoiser.pipeline.vae
    config = vae.config
    image = torch.from_numpy(np.array(pixels)).permute(2, 0, 1)[None].to(denoiser.device, vae.dtype) / 127.5 - 1
    answer = vae.encode(image).latent_dist
    mean, spread = answer.mean.float(), answer.std.float() * config.scaling_factor
    if (of_all := getattr(config, "latents_mean", None)) is not None:
        deviation = mean.new_tensor(config.latents_std).view(1, -1, 1, 1)
        mean, spread = (mean - mean.new_tensor(of_all).view(1, -1, 1, 1)) / deviation, spread / deviation
    elif (shift := getattr(config, "shift_factor", None)) is not None:
        mean = mean - shift
    return (mean * config.scaling_factor)[0].cpu().numpy(), spread[0].cpu().numpy()
