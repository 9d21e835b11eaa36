"""Tiny Stable Diffusion and SDXL pipelines with random weights, from the stock classes: a folder of 0.4 to 0.8 MB."""

import json
from pathlib import Path
from typing import Any

import torch

from genloop.registry import require

PIXELS, STEPS = 32, 5
BLOCKS: dict[str, Any] = {
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "sample_size": 16,
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "norm_num_groups": 4,
}
UNET = {**BLOCKS, "cross_attention_dim": 16, "attention_head_dim": 4}
UNET_XL = {
    **BLOCKS,
    "attention_head_dim": (2, 4),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "transformer_layers_per_block": (1, 2),
    "projection_class_embeddings_input_dim": 64,
    "cross_attention_dim": 32,
}
VAE = {
    "block_out_channels": (8, 16),
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "latent_channels": 4,
    "sample_size": PIXELS,
    "norm_num_groups": 4,
    "layers_per_block": 1,
}
CLIP = {
    "vocab_size": 515,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 77,
    "projection_dim": 16,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "pad_token_id": 1,
}
SCHEDULE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "timestep_spacing": "leading",
}


def write_pipeline(folder: Path, *, xl: bool = False, seed: int = 0) -> Path:
    """A pipeline's folder, as `save_pretrained` writes it -> the folder"""
    diffusers, transformers = require("diffusers"), require("transformers")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        parts: dict[str, Any] = {
            "unet": diffusers.UNet2DConditionModel(**(UNET_XL if xl else UNET)),
            "vae": diffusers.AutoencoderKL(**VAE),
            "text_encoder": transformers.CLIPTextModel(transformers.CLIPTextConfig(**CLIP)),
        }
        if xl:
            parts["text_encoder_2"] = transformers.CLIPTextModelWithProjection(transformers.CLIPTextConfig(**CLIP))
    parts |= {"scheduler": diffusers.DDIMScheduler(**SCHEDULE), "tokenizer": tokenizer(folder)}
    if xl:
        pipe = diffusers.StableDiffusionXLPipeline(**parts, tokenizer_2=parts["tokenizer"])
    else:
        unused: dict[str, Any] = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
        pipe = diffusers.StableDiffusionPipeline(**parts, **unused)
    pipe.save_pretrained(folder)
    return folder


def tokenizer(folder: Path) -> Any:
    """CLIP's tokenizer without merges: bytes, and bytes at the end of a word."""
    from tests.worlds.tiny_clip import byte_letters

    marks, letters = ["<|startoftext|>", "<|pad|>", "<|endoftext|>"], byte_letters()
    words = [*marks, *letters, *(letter + "</w>" for letter in letters)]
    place = folder.parent / f"{folder.name}-words"
    place.mkdir(parents=True)
    (place / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}), "utf-8")
    (place / "merges.txt").write_text("#version: 0.2\n", "utf-8")
    return require("transformers").CLIPTokenizer.from_pretrained(place, pad_token="<|pad|>", model_max_length=77)
