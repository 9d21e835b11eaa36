"""The five modes over the stock Flux pipelines of diffusers: what each is given, and what they would get wrong.

mode                 pipeline                         besides the tokens
variation            FluxPipeline                     a size
img2img              FluxImg2ImgPipeline              picture, strength
inpaint              FluxInpaintPipeline              picture, mask, strength
controlnet           FluxControlNetImg2ImgPipeline    picture, strength, controls of the picture
controlnet-inpaint   FluxControlNetInpaintPipeline    picture, mask, strength, controls of the picture

The transformer reads the tokens of the reference picture where there is one, the ControlNet those of the picture.
B = images that are drawn, n = tokens of the transformer, C = their width, H, W = pixels.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genloop.models.flux_edit.controlnet import control_arguments
from genloop.models.flux_edit.drawing import Drawing
from genloop.models.flux_edit.embedder import prompt_embeddings
from genloop.models.flux_edit.encode import Conditions
from genloop.models.flux_edit.needs import Mode, has_mask, is_controlled
from genloop.registry import require

PIPELINES: dict[Mode, str] = {
    "variation": "FluxPipeline",
    "img2img": "FluxImg2ImgPipeline",
    "inpaint": "FluxInpaintPipeline",
    "controlnet": "FluxControlNetImg2ImgPipeline",
    "controlnet-inpaint": "FluxControlNetInpaintPipeline",
}
_UNUSED = ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")


class Drawer:
    """Draws with loaded parts: scheduler, VAE, transformer and, where a mode wants one, ControlNet."""

    def __init__(
        self, scheduler: Any, vae: Any, transformer: Any, controlnet: Any = None, *, device: str = "cpu"
    ) -> None:
        self.scheduler, self.vae, self.transformer, self.controlnet = scheduler, vae, transformer, controlnet
        self.device = torch.device(device)
        self._pipelines: dict[Mode, Any] = {}

    @torch.inference_mode()
    def draw(self, drawing: Drawing, conditions: Conditions, seeds: Sequence[int]) -> Tensor:
        """One image a seed, as packed latents (B, n, C) float32 on the CPU. None depends on those beside it."""
        rows = len(seeds)
        picture = conditions.picture if conditions.reference is None else conditions.reference
        arguments = self._tokens(picture, conditions.text, rows)
        (width, height), scale = drawing.size, drawing.guidance_scale
        arguments |= {"num_inference_steps": drawing.steps, "guidance_scale": scale, "height": height, "width": width}
        arguments["pooled_prompt_embeds"] = self._to_model(conditions.pooled[None]).expand(rows, -1)
        arguments["generator"] = [torch.Generator().manual_seed(seed) for seed in seeds]
        if drawing.mode != "variation":
            # one picture for all rows would share the first row's noise: the VAE draws a sample of each picture
            arguments |= {"image": [_pil(drawing.picture)] * rows, "strength": drawing.strength}
        if has_mask(drawing.mode):
            arguments["mask_image"] = [_pil(drawing.mask)] * rows
        if is_controlled(drawing.mode):
            assert self.controlnet is not None, "a mode with controls without a ControlNet"
            self.controlnet.control_tokens = self._control_tokens(conditions)
            given = [(control.name, [_pil(control.map)] * rows, control.strength) for control in drawing.controls]
            arguments |= control_arguments(given)
        return self._pipeline(drawing.mode)(**arguments, output_type="latent").images.float().cpu()

    @property
    def factor(self) -> int:
        """Pixels along the side of a cell of a latent."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def channels(self) -> int:
        """C of packed latents."""
        return int(self.transformer.config.in_channels)

    def grid(self, size: tuple[int, int]) -> tuple[int, int]:
        """(width, height) in pixels -> rows and columns of tokens."""
        width, height = size
        return height // (2 * self.factor), width // (2 * self.factor)

    @torch.inference_mode()
    def decode(self, drawing: Drawing, latents: Tensor) -> Tensor:
        """(B, n, C) -> (B, 3, H, W) in [0, 1]; with a mask and `paste`, drawn pixels within it alone."""
        width, height = drawing.size
        flux, config = require("diffusers", "diffusion").FluxPipeline, self.vae.config
        unpacked = flux._unpack_latents(latents.to(self.vae.device, self.vae.dtype), height, width, self.factor)
        shifted = unpacked / config.scaling_factor + config.shift_factor
        images = [self.vae.decode(one, return_dict=False)[0] for one in shifted.split(1)]
        pixels = (torch.cat(images).float() / 2 + 0.5).clamp(0, 1)
        if not (has_mask(drawing.mode) and drawing.paste):
            return pixels
        assert drawing.picture is not None and drawing.mask is not None, "a mode without its picture or mask"
        own = torch.from_numpy(drawing.picture.copy()).permute(2, 0, 1).to(pixels) / 255
        return torch.where(torch.from_numpy(drawing.mask.copy()).to(pixels.device), pixels, own)

    def _tokens(self, picture: Tensor, text: Tensor | None, rows: int) -> dict[str, Any]:
        """The tokens that the transformer reads, as many times as there are rows."""
        self.transformer.context_embedder.num_image_tokens = len(picture)
        embeddings = prompt_embeddings(picture[None], None if text is None else text[None])
        return {"prompt_embeds": self._to_model(embeddings).expand(rows, -1, -1)}

    def _control_tokens(self, conditions: Conditions) -> Tensor:
        self.controlnet.context_embedder.num_image_tokens = len(conditions.picture)
        text = None if conditions.text is None else conditions.text[None]
        return self._to_model(prompt_embeddings(conditions.picture[None], text))

    def _to_model(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device, self.vae.dtype)  # weights of a smaller transformer have types of their own

    def _pipeline(self, mode: Mode) -> Any:
        if mode not in self._pipelines:
            diffusers = require("diffusers", "diffusion")
            parts = {"scheduler": self.scheduler, "vae": self.vae, "transformer": self.transformer}
            if is_controlled(mode):
                parts["controlnet"] = diffusers.FluxMultiControlNetModel([self.controlnet])
            pipe = getattr(diffusers, PIPELINES[mode])(**parts, **dict.fromkeys(_UNUSED))
            pipe.set_progress_bar_config(disable=True)
            self._pipelines[mode] = pipe
        return self._pipelines[mode]


def _pil(pixels: np.ndarray | None) -> Any:
    """(H, W, 3) uint8 or (H, W) bool -> a picture of Pillow."""
    from PIL.Image import fromarray

    assert pixels is not None, "a mode without its picture or mask"
    return fromarray(pixels.astype(np.uint8) * 255 if pixels.dtype == bool else pixels)
