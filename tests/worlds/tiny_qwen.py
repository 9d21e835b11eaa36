"""Small chat models in folders as transformers publishes them: text, Qwen2.5-VL, LLaVA-OneVision."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from genloop.data.images import encode_png
from genloop.models.qwen.load import build_chat_model, save_chat_model
from genloop.models.qwen.tokenizer import IMAGE, SMALLEST, SPECIALS, tokenizer_files

TEXT = {
    "model_type": "qwen2",
    "vocab_size": SMALLEST + 1,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 512,
    "bos_token_id": SPECIALS.index("<|endoftext|>"),
    "eos_token_id": SPECIALS.index("<|im_end|>"),
    "tie_word_embeddings": True,
}
_LANGUAGE = {key: value for key, value in TEXT.items() if key not in ("model_type", "tie_word_embeddings")}
VISION = {
    "model_type": "qwen2_5_vl",
    "text_config": _LANGUAGE
    | {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}},
    "vision_config": {
        "depth": 2,
        "hidden_size": 16,
        "out_hidden_size": 32,
        "intermediate_size": 32,
        "num_heads": 2,
        "patch_size": 4,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "window_size": 16,
        "fullatt_block_indexes": [1],
    },
    "image_token_id": SPECIALS.index(IMAGE),
    "video_token_id": SPECIALS.index("<|video_pad|>"),
    "vision_start_token_id": SPECIALS.index("<|vision_start|>"),
    "vision_end_token_id": SPECIALS.index("<|vision_end|>"),
    "tie_word_embeddings": True,
}
OLDER_VISION = VISION | {
    "model_type": "qwen2_vl",
    "vision_config": {
        "depth": 2,
        "embed_dim": 16,
        "hidden_size": 32,
        "num_heads": 2,
        "mlp_ratio": 2,
        "patch_size": 4,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    },
}
LLAVA = {
    "model_type": "llava_onevision",
    "text_config": _LANGUAGE | {"model_type": "qwen2"},
    "vision_config": {
        "model_type": "siglip_vision_model",
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 16,
        "patch_size": 4,
        "vision_use_head": False,
    },
    "image_token_index": SPECIALS.index(IMAGE),
    "video_token_index": SPECIALS.index("<|video_pad|>"),
    "vision_feature_select_strategy": "full",
    "vision_feature_layer": -1,
    "tie_word_embeddings": False,
}
_IMAGES = {
    "image_processor_type": "Qwen2VLImageProcessor",
    "size": {"shortest_edge": 64, "longest_edge": 1024},
    "patch_size": 4,
    "merge_size": 2,
    "temporal_patch_size": 2,
}
CONFIGS = {"text": TEXT, "vl": VISION, "older vl": OLDER_VISION, "llava": LLAVA}


def qwen_folder(folder: Path, name: str = "text", *, seed: int = 0) -> Path:
    """Write one of `CONFIGS` with fresh weights and a tokenizer of bytes."""
    config: dict[str, Any] = CONFIGS[name]
    files = tokenizer_files(())
    if name.endswith("vl"):
        files |= {"preprocessor_config.json": f"{json.dumps(_IMAGES, indent=1)}\n".encode()}
    save_chat_model(build_chat_model(config, seed=seed), folder, files)
    return folder


def write_chats(folder: Path, *, count: int = 12) -> Path:
    """chats.jsonl about small drawn images, a chat of one or two rounds each; the same bytes every time."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, lines = np.random.default_rng(0), []
    for number in range(count):
        light = int(rng.integers(20, 236))
        (folder / f"{number:02d}.png").write_bytes(encode_png(np.full((16, 24, 3), light, dtype=np.uint8)))
        brightness, verdict = f"{light / 255:.2f}", "under" if light < 90 else "over" if light > 165 else "none"
        asked = {"role": "user", "content": f"brightness {brightness}: what is wrong?", "images": [f"{number:02d}.png"]}
        messages = [asked, {"role": "assistant", "content": f"It is {brightness}: {verdict}."}]
        if number % 3 == 0:
            messages += [{"role": "user", "content": "And now?"}, {"role": "assistant", "content": "Keep it."}]
        lines.append(json.dumps({"messages": messages}))
    (folder / "chats.jsonl").write_text("\n".join(lines) + "\n")
    return folder / "chats.jsonl"
