"""Pipelines of diffusers as denoisers: components and text encoding are diffusers' own, the loop is not.

B = rows, C, h, w = channels and sides of a latent, T, D = tokens and width of a text, H, W = pixels.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from genloop.models.common.measure import count_flops
from genloop.models.diffusion.config import COMPONENTS, INDEX, TOKENIZERS, UNET, DiffusionFolder
from genloop.models.diffusion.denoiser import Condition
from genloop.models.diffusion.lora import LoraFile
from genloop.models.diffusion.lora_export import diffusers_settings, diffusers_tensors, read_lora
from genloop.models.unet.build import empty_unet, unet_class
from genloop.reading import read_json_object
from genloop.registry import require

_UNUSED = ("safety_checker", "feature_extractor", "image_encoder")


class PipelineDenoiser:
    """Implements `genloop.models.diffusion.denoiser.Denoiser` on a Stable Diffusion 1.5 or SDXL pipeline."""

    def __init__(self, pipeline: Any, folder: DiffusionFolder, grid: tuple[int, int], device: torch.device) -> None:
        self.pipeline, self.grid, self.device = pipeline, grid, device
        self.channels: int = folder.vae["latent_channels"]
        self.is_xl = "text_encoder_2" in COMPONENTS[folder.pipeline]
        self.size = grid[0] * folder.factor, grid[1] * folder.factor

    @functools.cached_property
    def flops_per_pass(self) -> float:
        """See `Denoiser`."""
        condition, unet = self.encode(""), _on_meta(self.pipeline.unet)
        embeddings = condition.embeddings.float().to("meta")
        pooled = None if condition.pooled is None else condition.pooled.float().to("meta")
        more = added_conditions([Condition(embeddings, pooled)], self.size) if self.is_xl else {}
        latents, time = torch.empty(1, self.channels, *self.grid, device="meta"), torch.ones(1, device="meta")
        return _flops(lambda: unet(latents, time, encoder_hidden_states=embeddings, **more))

    @functools.cached_property
    def flops_per_decode(self) -> float:
        """See `Denoiser`."""
        vae, latents = _on_meta(self.pipeline.vae), torch.empty(1, self.channels, *self.grid, device="meta")
        return _flops(lambda: vae.decode(latents))

    @functools.cached_property
    def flops_per_encode(self) -> float:
        """Of one image that a path begins with."""
        vae, pixels = _on_meta(self.pipeline.vae), torch.empty(1, 3, *self.size, device="meta")
        return _flops(lambda: vae.encode(pixels))

    @torch.inference_mode()
    def encode(self, text: str | None) -> Condition:
        """See `Denoiser.encode`."""
        return self.read([text])

    def read(self, texts: Sequence[str | None]) -> Condition:
        """The same for training, of a batch: embeddings (B, T, D), pooled (B, P); a None of SDXL's base is zeros."""
        pipe, words = self.pipeline, [text or "" for text in texts]
        if not self.is_xl:
            embeddings, _ = pipe.encode_prompt(words, self.device, 1, False)
            return Condition(embeddings)
        embeddings, _, pooled, _ = pipe.encode_prompt(
            prompt=words, device=self.device, num_images_per_prompt=1, do_classifier_free_guidance=False
        )
        if pipe.config.force_zeros_for_empty_prompt:
            without = torch.tensor([text is None for text in texts], device=embeddings.device)
            embeddings = embeddings.masked_fill(without[:, None, None], 0)
            pooled = pooled.masked_fill(without[:, None], 0)
        return Condition(embeddings, pooled)

    @torch.inference_mode()
    def predict(self, latents: Tensor, timesteps: Tensor, conditions: Sequence[Condition]) -> Tensor:
        """See `Denoiser.predict`."""
        unet = self.pipeline.unet
        texts = torch.cat([condition.embeddings for condition in conditions])
        more = added_conditions(conditions, self.size) if self.is_xl else {}
        output = unet(latents.to(unet.dtype), timesteps, encoder_hidden_states=texts, return_dict=False, **more)[0]
        return output.float()

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> Tensor:
        """See `Denoiser.decode`."""
        return (decode_latents(self.pipeline.vae, latents) / 2 + 0.5).clamp(0, 1)


def decode_latents(vae: Any, latents: Tensor) -> Tensor:
    """(B, C, h, w) clean latents -> (B, 3, H, W) float32, about [-1, 1], through which gradients flow."""
    config, scaled = vae.config, latents.to(vae.dtype) / vae.config.scaling_factor
    if mean := getattr(config, "latents_mean", None):
        spread = torch.tensor(config.latents_std, device=scaled.device, dtype=scaled.dtype).view(1, -1, 1, 1)
        scaled = scaled * spread + scaled.new_tensor(mean).view(1, -1, 1, 1)
    elif shift := getattr(config, "shift_factor", None):
        scaled = scaled + shift
    decoded: Tensor = vae.decode(scaled, return_dict=False)[0].float()
    return decoded


def added_conditions(conditions: Sequence[Condition], size: tuple[int, int]) -> dict[str, Any]:
    """What SDXL is told beside the text: the pooled embedding, H and W, no crop, H and W again."""
    pooled = torch.cat([condition.pooled for condition in conditions if condition.pooled is not None])
    sizes = torch.tensor([[*size, 0, 0, *size]], device=pooled.device, dtype=pooled.dtype)
    return {"added_cond_kwargs": {"text_embeds": pooled, "time_ids": sizes.repeat(len(pooled), 1)}}


def load_diffusion(
    folder: DiffusionFolder,
    loras: Sequence[LoraFile] = (),
    *,
    grid: tuple[int, int],
    dtype: torch.dtype = torch.float32,
    vae_dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    unet: Any = None,
) -> PipelineDenoiser:
    """The pipeline in a folder, its adapters added to its weights; only safetensors are read.

    unet: one with weights, in the place of the folder's.
    """
    pipeline_class = getattr(require("diffusers", "diffusion"), folder.pipeline)
    unet_class(folder.unet)  # diffusers takes classes of others from modules that are imported, and imports none
    index = read_json_object(folder.folder / INDEX)
    given = {name: None for name in _UNUSED if name in index} | ({} if unet is None else {UNET: unet})
    pipe = pipeline_class.from_pretrained(
        folder.folder, torch_dtype=dtype, local_files_only=True, use_safetensors=True, **given
    )
    add_loras(pipe, folder, loras)
    for name in COMPONENTS[folder.pipeline]:
        module = getattr(pipe, name).to(device).eval().requires_grad_(False)
        module.to(vae_dtype if name == "vae" else dtype)
    return PipelineDenoiser(pipe, folder, grid, torch.device(device))


def empty_diffusion(
    folder: DiffusionFolder, *, grid: tuple[int, int], dtype: torch.dtype = torch.float32
) -> PipelineDenoiser:
    """The same on the meta device: no weight is read."""
    diffusers, transformers = require("diffusers", "diffusion"), require("transformers")
    index, parts = read_json_object(folder.folder / INDEX), dict[str, Any]()
    with torch.device("meta"):
        for name in COMPONENTS[folder.pipeline]:
            if name == UNET:
                parts[name] = empty_unet(folder.unet)
            elif name in TOKENIZERS:
                component = getattr(transformers, index[name][1])
                parts[name] = component(component.config_class.from_pretrained(folder.folder / name))
            else:
                parts[name] = getattr(diffusers, index[name][1]).from_config(folder.vae)
            parts[name].eval().requires_grad_(False)
            parts[name].to(torch.float32 if name == "vae" else dtype)
    unused = {name: None for name in _UNUSED if name in index}
    pipeline_class = getattr(diffusers, folder.pipeline)
    pipe = pipeline_class.from_pretrained(folder.folder, local_files_only=True, **unused, **parts)
    return PipelineDenoiser(pipe, folder, grid, torch.device("meta"))


def add_loras(pipe: Any, base: DiffusionFolder, loras: Sequence[LoraFile]) -> None:
    """Add weight * (alpha / rank) B A of each file to the layers; every adapter of a file is loaded, or none."""
    if not loras:
        return
    names = [f"lora_{number}" for number in range(len(loras))]
    for name, file in zip(names, loras):
        lora = read_lora(file.file, base)
        tensors, settings = diffusers_tensors(lora), diffusers_settings(lora)
        for part in lora:
            more = {"adapter_name": name, "metadata": settings, "network_alphas": None}
            if part == UNET:
                pipe.load_lora_into_unet(tensors, unet=pipe.unet, **more)
            else:
                pipe.load_lora_into_text_encoder(tensors, text_encoder=getattr(pipe, part), prefix=part, **more)
    pipe.set_adapters(names, [lora.weight for lora in loras])
    pipe.fuse_lora(adapter_names=names)
    pipe.unload_lora_weights()


def _on_meta(component: Any) -> Any:
    """A component's layers, without values."""
    with torch.device("meta"):
        return type(component).from_config(component.config).eval()


@torch.inference_mode()
def _flops(work: Callable[[], object]) -> float:
    return float(count_flops(work))
