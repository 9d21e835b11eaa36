"""What a connector learns from, computed once: packed latents and image tokens of pictures."""

from collections.abc import Callable, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genloop.data.latents.cache import Arrays, EncodedCache, latent_key
from genloop.data.latents.examples import CaptionedImages
from genloop.distributed import World
from genloop.hashing import sha256_tree
from genloop.models.flux_edit import load
from genloop.models.flux_edit.config import WEIGHTS
from genloop.models.flux_edit.encode import picture_tokens, pooled_text
from genloop.registry import require
from genloop.training.reductions import wait_for_all

_TOKENS, _LATENTS = "tokens", "latents"


class _Encoders:
    """The VAE and Qwen2-VL, loaded when something is missing."""

    def __init__(self, folder: Path, num_tokens: int, device: str) -> None:
        self.folder, self.num_tokens, self.device = folder, num_tokens, device

    @cached_property
    def vae(self) -> Any:
        return load.load_vae(self.folder, dtype=torch.float32, device=self.device)[0]

    @cached_property
    def qwen(self) -> tuple[Any, Any, Any]:
        return load.load_qwen(self.folder, dtype=torch.float32, device=self.device)

    @torch.inference_mode()
    def latents(self, pixels: Any) -> Tensor:
        """(H, W, 3) uint8 -> (n, C): the mode of the VAE's answer, shifted, scaled and packed as Flux has it."""
        image = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float().to(self.device) / 127.5 - 1
        config = self.vae.config
        found = (self.vae.encode(image).latent_dist.mode() - config.shift_factor) * config.scaling_factor
        pack = require("diffusers", "diffusion").FluxPipeline._pack_latents
        return pack(found, 1, found.shape[1], *found.shape[2:])[0].float().cpu()

    def tokens(self, pixels: Any) -> Tensor:
        """(H, W, 3) uint8 -> (N, Q)"""
        return picture_tokens(*self.qwen, pixels, num_tokens=self.num_tokens).flatten(0, 1)


def fill_caches(
    folder: Path, pictures: CaptionedImages, place: Path, num_tokens: int, world: World, device: str
) -> Callable[[int], tuple[Tensor, Tensor]]:
    """Compute what is missing in `place`, each rank its share -> position -> latents (n, C) and tokens (N, Q)."""
    made = _Encoders(folder, num_tokens, device)
    owners = {_LATENTS: sha256_tree(folder / WEIGHTS["vae"]), _TOKENS: sha256_tree(folder / WEIGHTS["qwen"])}
    keys = {
        kind: [latent_key(example, owner, f"{kind}/{num_tokens}") for example in pictures.examples]
        for kind, owner in owners.items()
    }
    caches = {kind: EncodedCache(place, kind, keys[kind]) for kind in owners}
    compute = {_LATENTS: made.latents, _TOKENS: made.tokens}
    for kind, cache in caches.items():
        cache.fill(partial(_entry, kind, compute[kind], pictures, dict(zip(keys[kind], range(len(pictures))))), world)
    wait_for_all(world)
    for cache in caches.values():
        cache.open()

    def read(position: int) -> tuple[Tensor, Tensor]:
        arrays = [caches[kind].read(keys[kind][position])[kind] for kind in (_LATENTS, _TOKENS)]
        return torch.from_numpy(arrays[0]), torch.from_numpy(arrays[1])

    return read


def _entry(
    kind: str, compute: Callable[[Any], Tensor], pictures: CaptionedImages, at: Mapping[str, int], key: str
) -> Arrays:
    return {kind: compute(pictures.pixels(at[key])).numpy()}


def pooled_empty_text(folder: Path) -> Tensor:
    """(P,) of CLIP, which reads the empty text for every picture."""
    encoder = load.load_text_encoder(folder, "clip", dtype=torch.float32, device="cpu")
    return pooled_text(*encoder).clone()  # an inference tensor cannot take part in a training
