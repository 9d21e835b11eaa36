"""A Qwen2vl-Flux of stock classes in the published layout, small enough to draw in a hundredth of a second."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import nn

FLUX: dict[str, Any] = {
    "patch_size": 1,
    "in_channels": 16,
    "num_layers": 1,
    "num_single_layers": 1,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": 32,
    "pooled_projection_dim": 32,
    "axes_dims_rope": (4, 4, 8),
    "guidance_embeds": True,
}
VAE: dict[str, Any] = {
    "sample_size": 32,
    "block_out_channels": (4, 8, 8, 8),
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 1,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
    "shift_factor": 0.0609,
    "scaling_factor": 1.5035,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
}
SCHEDULER = {"shift": 3.0, "use_dynamic_shifting": True}
TEXT_WIDTH, VISION_WIDTH, INNER = 32, 32, 32
_MARKS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>")
_MORE_MARKS = ("<|video_pad|>",)


def write_tiny_flux_edit(folder: Path, *, seed: int = 0, flux: Mapping[str, Any] | None = None) -> Path:
    """All components but Anyline, in bfloat16 -> the folder. ckpts/tiny/flux_edit is the one of seed 0.

    `flux`: what differs in the config of the transformer.
    """
    before = torch.get_default_dtype()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_default_dtype(torch.bfloat16)
        try:
            _write_flux(folder / "flux", FLUX | dict(flux or {}))
            _write_qwen(folder / "qwen2-vl")
            _write_controlnet(folder / "controlnet")
            _write_depth(folder / "depth")
            _write_sam2(folder / "sam2")
        finally:
            torch.set_default_dtype(before)
    return folder


def _write_flux(folder: Path, flux: Mapping[str, Any]) -> None:
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
    from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

    FluxTransformer2DModel(**flux).save_pretrained(folder / "transformer")
    AutoencoderKL(**VAE).save_pretrained(folder / "vae")
    FlowMatchEulerDiscreteScheduler(**SCHEDULER).save_pretrained(folder / "scheduler")
    t5 = T5Config(
        vocab_size=300, d_model=TEXT_WIDTH, d_kv=8, d_ff=64, num_layers=2, num_heads=4, is_encoder_decoder=False
    )
    T5EncoderModel(t5).save_pretrained(folder / "text_encoder_2")
    clip = CLIPTextConfig(
        vocab_size=300,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        bos_token_id=257,
        eos_token_id=258,
        pad_token_id=256,
    )
    CLIPTextModel(clip).save_pretrained(folder / "text_encoder")
    _write_tokenizer(folder / "tokenizer", ("<|pad|>", "<|startoftext|>", "<|endoftext|>"), pad="<|pad|>")
    _write_tokenizer(folder / "tokenizer_2", ("<pad>", "</s>"), pad="<pad>")


def _write_qwen(folder: Path) -> None:
    from transformers import Qwen2VLConfig, Qwen2VLImageProcessorPil, Qwen2VLModel

    ids = {mark: 256 + place for place, mark in enumerate((*_MARKS, *_MORE_MARKS))}
    config = Qwen2VLConfig(
        text_config={
            "vocab_size": 272,
            "hidden_size": VISION_WIDTH,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "max_position_embeddings": 1024,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]},
        },
        vision_config={
            "depth": 2,
            "embed_dim": 32,
            "hidden_size": VISION_WIDTH,
            "num_heads": 2,
            "mlp_ratio": 2,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    Qwen2VLModel(config).save_pretrained(folder)
    Qwen2VLImageProcessorPil().save_pretrained(folder)
    _write_tokenizer(folder, (*_MARKS, *_MORE_MARKS), pad="<|endoftext|>")
    connector, embedder = nn.Linear(VISION_WIDTH, TEXT_WIDTH), nn.Linear(TEXT_WIDTH, INNER)
    torch.save(
        {f"module.linear.{key}": value for key, value in connector.state_dict().items()}, folder / "connector.pt"
    )
    torch.save(embedder.state_dict(), folder / "t5_embedder.pt")


def _write_controlnet(folder: Path) -> None:
    from diffusers import FluxControlNetModel

    net = FluxControlNetModel(**FLUX, num_mode=10)
    for head in (*net.controlnet_blocks, *net.controlnet_single_blocks, net.controlnet_x_embedder):
        nn.init.normal_(head.weight, std=0.5)  # they begin at zero, where no control counts
    net.save_pretrained(folder)


def _write_depth(folder: Path) -> None:
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config, DPTImageProcessorPil

    stages = [f"stage{number}" for number in (1, 2, 3, 4)]
    backbone = Dinov2Config(
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        mlp_ratio=2,
        image_size=56,
        patch_size=14,
        out_features=stages,
        reshape_hidden_states=False,
        apply_layernorm=True,
    )
    config = DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=32,
        neck_hidden_sizes=[8, 16, 16, 16],
        fusion_hidden_size=16,
        head_hidden_size=8,
        patch_size=14,
    )
    DepthAnythingForDepthEstimation(config).save_pretrained(folder)
    DPTImageProcessorPil(
        do_resize=True, size={"height": 56, "width": 56}, ensure_multiple_of=14, keep_aspect_ratio=True
    ).save_pretrained(folder)


def _write_sam2(folder: Path) -> None:
    from transformers import Sam2Config, Sam2Model

    config = Sam2Config(
        vision_config={
            "backbone_config": {
                "model_type": "sam2_hiera_det_model",
                "hidden_size": 8,
                "num_attention_heads": 1,
                "image_size": [64, 64],
                "blocks_per_stage": [1, 2, 2, 1],
                "embed_dim_per_stage": [8, 16, 32, 64],
                "num_attention_heads_per_stage": [1, 1, 2, 4],
                "global_attention_blocks": [4],
                "window_positional_embedding_background_size": [2, 2],
                "window_size_per_stage": [4, 4, 4, 4],
            },
            "backbone_channel_list": [64, 32, 16, 8],
            "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
            "fpn_hidden_size": 16,
        },
        prompt_encoder_config={"hidden_size": 16, "image_size": 64, "patch_size": 16, "mask_input_channels": 4},
        mask_decoder_config={"hidden_size": 16, "mlp_dim": 32, "num_attention_heads": 2, "iou_head_hidden_dim": 16},
    )
    Sam2Model(config).save_pretrained(folder)


def _write_tokenizer(folder: Path, marks: tuple[str, ...], *, pad: str) -> None:
    """Bytes as tokens 0 to 255, then the marks."""
    folder.mkdir(parents=True, exist_ok=True)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {char: place for place, char in enumerate((*alphabet, *marks))}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(marks))
    tokenizer.save(str(folder / "tokenizer.json"))
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": pad, "eos_token": marks[-1]}
    (folder / "tokenizer_config.json").write_text(json.dumps(about))
