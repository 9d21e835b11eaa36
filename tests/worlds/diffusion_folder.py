"""A folder of a Stable Diffusion pipeline as far as configs and headers go, which are checked before loading."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

CONFIGS: dict[str, dict[str, Any]] = {
    "unet": {"sample_size": 16, "in_channels": 4, "block_out_channels": [8, 16]},
    "vae": {"latent_channels": 4, "block_out_channels": [8, 16]},
    "text_encoder": {"hidden_size": 16},
}
LAYERS = {
    "unet": "block.to_q",
    "vae": "decoder.conv_in",
    "text_encoder": "text_model.encoder.q_proj",
}


def write_folder(folder: Path) -> Path:
    """model_index.json and a folder a component, each with one layer (8, 8) -> the folder"""
    (folder / "tokenizer").mkdir(parents=True)
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps({"_class_name": "PNDMScheduler"}))
    for part, config in CONFIGS.items():
        (folder / part).mkdir()
        (folder / part / "config.json").write_text(json.dumps(config))
        name = "model" if part == "text_encoder" else "diffusion_pytorch_model"
        save_file({f"{LAYERS[part]}.weight": torch.zeros(8, 8)}, folder / part / f"{name}.safetensors")
    return folder
