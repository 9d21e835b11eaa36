"""A config of mmdet 3.x for Mask2Formers of other sizes than the published ones: for tests in the audit environment."""

from pathlib import Path
from typing import Any

from geneval.detectors.mmdet import packaged_config
from genloop.models.mask2former.config import Mask2FormerConfig


def write_config(path: Path, config: Mask2FormerConfig, scale: tuple[int, int]) -> Path:
    """A Python file that changes the sizes in mmdet's own config, and what images have to fit -> the file"""
    packaged = packaged_config("s")
    pipeline = [
        {"type": "LoadImageFromFile", "to_float32": True},
        {"type": "Resize", "scale": (max(scale), min(scale)), "keep_ratio": True},
        {"type": "PackDetInputs", "meta_keys": ["img_id", "img_path", "ori_shape", "img_shape", "scale_factor"]},
    ]
    lines = {
        "_base_": str(packaged),
        "model": _model(config),
        "test_dataloader": {"dataset": {"pipeline": pipeline}},
    }
    path.write_text("".join(f"{name} = {value!r}\n" for name, value in lines.items()), encoding="utf-8")
    return path


def _model(config: Mask2FormerConfig) -> dict[str, Any]:
    swin, head = config.swin, config.head
    attention = {"embed_dims": head.hidden_dim, "num_heads": head.num_attention_heads}
    decoding = {"embed_dims": head.hidden_dim, "feedforward_channels": head.dim_feedforward}
    encoding = {"embed_dims": head.hidden_dim, "feedforward_channels": head.encoder_feedforward_dim}
    places = {"num_feats": head.hidden_dim // 2}
    return {
        "backbone": {"embed_dims": swin.embed_dim, "depths": list(swin.depths), "num_heads": list(swin.num_heads)},
        "panoptic_head": {
            "in_channels": [swin.embed_dim * 2**stage for stage in range(4)],
            "feat_channels": head.feature_size,
            "out_channels": head.mask_feature_size,
            "num_queries": head.num_queries,
            "positional_encoding": places,
            "pixel_decoder": {
                "positional_encoding": places,
                "encoder": {
                    "num_layers": head.encoder_layers,
                    "layer_cfg": {"self_attn_cfg": attention, "ffn_cfg": encoding},
                },
            },
            "transformer_decoder": {
                "num_layers": head.decoder_layers - 1,
                "layer_cfg": {"self_attn_cfg": attention, "cross_attn_cfg": attention, "ffn_cfg": decoding},
            },
        },
    }
