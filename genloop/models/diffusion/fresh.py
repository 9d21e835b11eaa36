"""Diffusion models with fresh weights, of diffusers' stock classes and of one's own sizes: what small ones start from.

Weights are keyed by a seed; nothing here depends on the global random state, or changes it.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import torch

from genloop.checkpoint import save_folder, whole_folder
from genloop.reading import parse_json
from genloop.registry import require

START, PAD, END = "<|startoftext|>", "<|pad|>", "<|endoftext|>"
SCHEDULE = {  # Stable Diffusion's, with v as the target of the network (Salimans and Ho 2022)
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "timestep_spacing": "leading",
}
SIZE_IDS = 6  # numbers that SDXL is told about sizes and crops
VAE_WEIGHTS = "diffusion_pytorch_model.safetensors"
_SIZE_WIDTH = 8  # of the embedding of each
_LAST = "</w>"  # marks the end of a word

T = TypeVar("T")


def keyed(seed: int, build: Callable[[], T]) -> T:
    """What `build` makes of torch's global generator, seeded for it alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def fresh_vae(
    *, channels: Sequence[int], latent_channels: int, layers: int, num_groups: int, side: int, seed: int
) -> Any:
    """An AutoencoderKL; a cell of its latents is 2 ** (levels - 1) pixels wide."""
    autoencoder = require("diffusers", "diffusion").AutoencoderKL
    levels = len(channels)
    return keyed(
        seed,
        lambda: autoencoder(
            block_out_channels=tuple(channels),
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            latent_channels=latent_channels,
            layers_per_block=layers,
            norm_num_groups=num_groups,
            mid_block_add_attention=False,
            sample_size=side,
            scaling_factor=1.0,
        ),
    )


def save_vae(vae: Any, folder: Path, *, scaling_factor: float) -> None:
    """Write a folder as diffusers reads it, all or nothing."""
    vae.register_to_config(scaling_factor=scaling_factor)
    config = parse_json(vae.to_json_string())
    save_folder(folder, vae.state_dict(), {"config.json": config}, weights=VAE_WEIGHTS)


def load_vae(folder: Path) -> Any:
    """The AutoencoderKL in a folder, in eval mode, without gradients."""
    vae = require("diffusers", "diffusion").AutoencoderKL
    return vae.from_pretrained(folder, local_files_only=True, use_safetensors=True).requires_grad_(False).eval()


def word_tokenizer(words: Sequence[str], *, length: int) -> Any:
    """CLIP's tokenizer with merges that make one token of each word; texts are padded to `length` tokens."""
    letters = sorted({letter for word in words for letter in word})
    merges = word_merges(words)
    tokens = [START, PAD, END, *letters, *(letter + _LAST for letter in letters), *map("".join, merges)]
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    clip = require("transformers", "diffusion").CLIPTokenizer
    return clip(vocab=vocabulary, merges=merges, pad_token=PAD, model_max_length=length)


def word_merges(words: Sequence[str]) -> list[tuple[str, str]]:
    """Merges of byte pair encoding (Sennrich et al. 2016), first to last, after which each word is one token.

    A later merge is only used where no earlier one can be, so it leaves the words before it as they are.
    """
    ranks: dict[tuple[str, str], int] = {}
    for word in words:
        while len(pieces := _pieces(word, ranks)) > 1:
            ranks[pieces[0], pieces[1]] = len(ranks)
    return list(ranks)


def _pieces(word: str, ranks: Mapping[tuple[str, str], int]) -> list[str]:
    pieces = [*word[:-1], word[-1] + _LAST]
    while known := [pair for pair in pairwise(pieces) if pair in ranks]:
        place = list(pairwise(pieces)).index(min(known, key=ranks.__getitem__))
        pieces[place : place + 2] = [pieces[place] + pieces[place + 1]]
    return pieces


def fresh_pipeline(kind: str, tokenizer: Any, vae: Any, sizes: Mapping[str, Any], *, seed: int) -> Any:
    """A pipeline that draws latents of a VAE. kind: `sd` (Stable Diffusion 1.5) or `sdxl`.

    sizes: `channels`, `layers`, `heads`, `num_groups` of the UNet, which attends to the text at every level;
    `text_width`, `text_layers`, `text_heads` of each text encoder.
    """
    diffusers, transformers = require("diffusers", "diffusion"), require("transformers", "diffusion")
    is_xl = kind == "sdxl"
    text = transformers.CLIPTextConfig(**_text_config(tokenizer, sizes))
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    unet = {
        "sample_size": vae.config.sample_size // factor,
        "in_channels": vae.config.latent_channels,
        "out_channels": vae.config.latent_channels,
        "block_out_channels": tuple(sizes["channels"]),
        "layers_per_block": sizes["layers"],
        "down_block_types": ("CrossAttnDownBlock2D",) * len(sizes["channels"]),
        "up_block_types": ("CrossAttnUpBlock2D",) * len(sizes["channels"]),
        "norm_num_groups": sizes["num_groups"],
        "attention_head_dim": sizes["heads"],  # diffusers' name for their number
        "cross_attention_dim": sizes["text_width"] * (2 if is_xl else 1),
    }
    if is_xl:
        unet |= {
            "use_linear_projection": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": _SIZE_WIDTH,
            "projection_class_embeddings_input_dim": SIZE_IDS * _SIZE_WIDTH + sizes["text_width"],
        }

    def build() -> dict[str, Any]:
        parts = {"unet": diffusers.UNet2DConditionModel(**unet), "text_encoder": transformers.CLIPTextModel(text)}
        return parts | ({"text_encoder_2": transformers.CLIPTextModelWithProjection(text)} if is_xl else {})

    parts = keyed(seed, build) | {"vae": vae, "tokenizer": tokenizer, "scheduler": diffusers.DDIMScheduler(**SCHEDULE)}
    if is_xl:
        return diffusers.StableDiffusionXLPipeline(
            **parts, tokenizer_2=tokenizer, force_zeros_for_empty_prompt=False, add_watermarker=False
        )
    unused: dict[str, Any] = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    return diffusers.StableDiffusionPipeline(**parts, **unused)


def save_pipeline(pipeline: Any, folder: Path) -> None:
    """Write a pipeline's folder as diffusers reads it, all or nothing."""
    with whole_folder(folder) as temporary:
        pipeline.save_pretrained(temporary, safe_serialization=True)


def _text_config(tokenizer: Any, sizes: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": sizes["text_width"],
        "intermediate_size": 2 * sizes["text_width"],
        "projection_dim": sizes["text_width"],
        "num_hidden_layers": sizes["text_layers"],
        "num_attention_heads": sizes["text_heads"],
        "max_position_embeddings": tokenizer.model_max_length,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
