"""A tiny CLIP with random weights, in open_clip's layout and in that of transformers: for tests."""

import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from geneval.canary.pictures import CLASS, color_requests
from geneval.colors.crops import crop
from geneval.colors.zero_shot import TEMPLATES, color_texts
from genloop.models.clip.load import ClipEmbedder
from genloop.records import COLORS

VISION = {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8, "head_width": 32}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
MODEL_CONFIG: dict[str, Any] = {"embed_dim": 16, "vision_cfg": VISION, "text_cfg": TEXT}


def shapes(config: dict[str, Any] = MODEL_CONFIG) -> dict[str, tuple[int, ...]]:
    """{key: shape} of every tensor."""
    image, text, size = config["vision_cfg"], config["text_cfg"], config["embed_dim"]
    width, patch = image["width"], image["patch_size"]
    found: dict[str, tuple[int, ...]] = {
        "logit_scale": (),
        "visual.class_embedding": (width,),
        "visual.positional_embedding": ((image["image_size"] // patch) ** 2 + 1, width),
        "visual.proj": (width, size),
        "visual.conv1.weight": (width, 3, patch, patch),
        "positional_embedding": (text["context_length"], text["width"]),
        "text_projection": (text["width"], size),
        "token_embedding.weight": (text["vocab_size"], text["width"]),
    }
    norms = [("visual.ln_pre", width), ("visual.ln_post", width), ("ln_final", text["width"])]
    for tower, side in (("visual.transformer", image), ("transformer", text)):
        for layer in range(side["layers"]):
            found |= _block(f"{tower}.resblocks.{layer}", side["width"])
            norms += [(f"{tower}.resblocks.{layer}.ln_{place}", side["width"]) for place in (1, 2)]
    return found | {f"{name}.{part}": (wide,) for name, wide in norms for part in ("weight", "bias")}


def _block(name: str, width: int) -> dict[str, tuple[int, ...]]:
    linear = {"attn.out_proj": (width, width), "mlp.c_fc": (4 * width, width), "mlp.c_proj": (width, 4 * width)}
    found: dict[str, tuple[int, ...]] = {f"{name}.{key}.weight": shape for key, shape in linear.items()}
    found |= {f"{name}.{key}.bias": (shape[0],) for key, shape in linear.items()}
    return found | {f"{name}.attn.in_proj_weight": (3 * width, width), f"{name}.attn.in_proj_bias": (3 * width,)}


def random_tensors(seed: int) -> dict[str, Tensor]:
    """Every tensor, in float32."""
    generator = torch.Generator().manual_seed(seed)
    return {key: torch.randn(shape, generator=generator) * 0.2 for key, shape in shapes().items()}


def color_tensors(embedder: ClipEmbedder) -> dict[str, Tensor]:
    """Those of seed 0, but for the last product of both towers: fitted so that the canary's patches, and the sentences
    about them, lie in one direction for each colour. `embedder` has the tensors of seed 0 and the tokenizer to fit for.
    """
    model = embedder.network.model
    crops = [crop(image, one) for image, found in color_requests().values() for one in found]
    with torch.inference_mode():
        seen = model.vision_model(pixel_values=embedder.preprocessing(crops)).pooler_output
        read = model.text_model(input_ids=embedder.tokenizer(color_texts(CLASS))).pooler_output
    directions = torch.eye(len(COLORS), MODEL_CONFIG["embed_dim"])
    found = random_tensors(0)
    found["visual.proj"] = _ridge(seen, directions.repeat(2, 1))
    found["text_projection"] = _ridge(read, directions.repeat_interleave(len(TEMPLATES), 0))
    return found


def _ridge(rows: Tensor, wanted: Tensor) -> Tensor:
    """(N, W) and (N, D) -> (W, D): the product that comes near to what is wanted."""
    x, y = rows.double(), wanted.double()
    return torch.linalg.solve(x.T @ x + 1e-4 * torch.eye(x.shape[1], dtype=x.dtype), x.T @ y).float().contiguous()


def write_clip_folder(
    folder: Path, seed: int = 0, *, tensors: dict[str, Tensor] | None = None, **model_cfg: Any
) -> Path:
    """open_clip_config.json and open_clip_model.safetensors -> the folder"""
    folder.mkdir(parents=True)
    config = {"model_cfg": {**MODEL_CONFIG, **model_cfg}, "preprocess_cfg": {"interpolation": "bicubic"}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    found = tensors or random_tensors(seed)
    save_file(found, folder / "open_clip_model.safetensors", metadata={"format": "pt"})
    return folder


TRANSFORMERS_NAMES = (  # open_clip's -> those of transformers; without these they stay
    (r"^visual\.transformer\.resblocks\.", "vision_model.encoder.layers."),
    (r"^transformer\.resblocks\.", "text_model.encoder.layers."),
    (r"\.attn\.out_proj\.", ".self_attn.out_proj."),
    (r"\.ln_(\d)\.", r".layer_norm\1."),
    (r"\.c_fc\.", ".fc1."),
    (r"\.c_proj\.", ".fc2."),
    (r"^visual\.ln_pre\.", "vision_model.pre_layrnorm."),
    (r"^visual\.ln_post\.", "vision_model.post_layernorm."),
    (r"^ln_final\.", "text_model.final_layer_norm."),
    (r"^visual\.conv1\.", "vision_model.embeddings.patch_embedding."),
    (r"^visual\.class_embedding$", "vision_model.embeddings.class_embedding"),
    (r"^visual\.positional_embedding$", "vision_model.embeddings.position_embedding.weight"),
    (r"^positional_embedding$", "text_model.embeddings.position_embedding.weight"),
    (r"^token_embedding\.", "text_model.embeddings.token_embedding."),
    (r"^visual\.proj$", "visual_projection.weight"),
    (r"^text_projection$", "text_projection.weight"),
)
START, END = 49406, 49407  # the ids of the begin and the end of a text


def transformers_tensors(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """open_clip's tensors under the names of transformers, whose projections are turned and whose q, k, v are three."""
    found = {}
    for key, value in tensors.items():
        name = key
        for pattern, new in TRANSFORMERS_NAMES:
            name = re.sub(pattern, new, name)
        if ".attn.in_proj_" in name:
            kind = name.rpartition("_")[2]
            for letter, part in zip("qkv", value.chunk(3)):
                found[f"{name.partition('.attn.')[0]}.self_attn.{letter}_proj.{kind}"] = part.contiguous()
        else:
            found[name] = value.T.contiguous() if name.endswith("_projection.weight") else value
    return found


def write_transformers_folder(
    folder: Path,
    seed: int = 0,
    hidden_act: str = "quick_gelu",
    *,
    tensors: dict[str, Tensor] | None = None,
    **text_config: Any,
) -> Path:
    """The same weights as `write_clip_folder`, as OpenAI's folder has them -> the folder"""
    folder.mkdir(parents=True)
    vision = {"image_size": 32, "patch_size": 8, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {"vocab_size": 49408, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    text |= {"eos_token_id": 2, **text_config}  # as published, and as published not what the tokenizer ends with
    config = {
        "model_type": "clip",
        "projection_dim": 16,
        "vision_config": {**vision, "intermediate_size": 256, "hidden_act": hidden_act},
        "text_config": {**text, "intermediate_size": 128, "hidden_act": hidden_act},
    }
    (folder / "config.json").write_text(json.dumps(config))
    found = transformers_tensors(tensors or random_tensors(seed))
    found["text_model.embeddings.position_ids"] = torch.arange(77)[None]  # older files have it
    save_file(found, folder / "model.safetensors", metadata={"format": "pt"})
    write_tokenizer(folder, [])
    return folder


def byte_letters() -> list[str]:
    """How CLIP's vocabulary spells the 256 bytes: those that can be shown as themselves come first."""
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [chr(byte) for byte in shown] + [chr(256 + place) for place in range(256 - len(shown))]


def write_tokenizer(folder: Path, merges: list[str]) -> None:
    """vocab.json and merges.txt: 256 bytes, the same at the end of a word, what is merged, begin and end"""
    letters = byte_letters()
    words = [*letters, *(letter + "</w>" for letter in letters), *("".join(merge.split()) for merge in merges)]
    vocabulary = {word: place for place, word in enumerate(words)} | {"<|startoftext|>": START, "<|endoftext|>": END}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n", encoding="utf-8")
