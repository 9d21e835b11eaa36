"""The tensors of mmdet's Mask2Former under the names of transformers, and its sizes from their shapes. No torch.

The names are those of mmdet 3.x (`genloop.models.mask2former.mmdet_names` has those of 2.x). Every tensor in
transformers is one of mmdet's, a third of one (query, key and value are one matrix there), or one with its channels in
another order.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from genloop.checkpoint import Shape
from genloop.models.mask2former.config import (
    ENCODER,
    NUM_LEVELS,
    NUM_POINTS,
    PIXEL_DECODER,
    TRANSFORMER,
    HeadDims,
    Mask2FormerConfig,
    SwinDims,
)

Part = Literal["whole", "first", "second", "third", "patches"]  # patches: 2 x 2 of them as channels, in another order

_THIRDS: dict[str, Part] = {
    **{".query.": "first", ".key.": "second", ".value.": "third"},
    **{".q_proj.": "first", ".k_proj.": "second", ".v_proj.": "third"},
    **{".downsample.": "patches"},
}
_GROUPS: tuple[tuple[str, str, Mapping[str, str]], ...] = (
    (
        rf"{ENCODER}\.encoder\.layers\.(\d+)\.blocks\.(\d+)\.",
        r"backbone.stages.\1.blocks.\2.",
        {
            "layernorm_before.": "norm1.",
            "layernorm_after.": "norm2.",
            "attention.self.query.": "attn.w_msa.qkv.",
            "attention.self.key.": "attn.w_msa.qkv.",
            "attention.self.value.": "attn.w_msa.qkv.",
            "attention.self.relative": "attn.w_msa.relative",
            "attention.output.dense.": "attn.w_msa.proj.",
            "intermediate.dense.": "ffn.layers.0.0.",
            "output.dense.": "ffn.layers.1.",
        },
    ),
    (rf"{ENCODER}\.encoder\.layers\.(\d+)\.", r"backbone.stages.\1.", {"downsample.": "downsample."}),
    (
        rf"{ENCODER}\.",
        "backbone.",
        {
            "embeddings.patch_embeddings.": "patch_embed.",
            "embeddings.norm.": "patch_embed.norm.",
            **{f"hidden_states_norms.stage{stage + 1}.": f"norm{stage}." for stage in range(4)},
        },
    ),
    (
        rf"{PIXEL_DECODER}\.encoder\.layers\.(\d+)\.",
        r"panoptic_head.pixel_decoder.encoder.layers.\1.",
        {
            "self_attn.": "self_attn.",
            "self_attn_layer_norm.": "norms.0.",
            "final_layer_norm.": "norms.1.",
            "fc1.": "ffn.layers.0.0.",
            "fc2.": "ffn.layers.1.",
        },
    ),
    (
        rf"{PIXEL_DECODER}\.",
        "panoptic_head.pixel_decoder.",
        {
            **{f"input_projections.{level}.0.": f"input_convs.{level}.conv." for level in range(NUM_LEVELS)},
            **{f"input_projections.{level}.1.": f"input_convs.{level}.gn." for level in range(NUM_LEVELS)},
            "level_embed": "level_encoding.weight",
            "adapter_1.0.": "lateral_convs.0.conv.",
            "adapter_1.1.": "lateral_convs.0.gn.",
            "layer_1.0.": "output_convs.0.conv.",
            "layer_1.1.": "output_convs.0.gn.",
            "mask_projection.": "mask_feature.",
        },
    ),
    (
        rf"{TRANSFORMER}\.decoder\.layers\.(\d+)\.",
        r"panoptic_head.transformer_decoder.layers.\1.",
        {
            "cross_attn.": "cross_attn.attn.",
            "cross_attn_layer_norm.": "norms.0.",
            **{f"self_attn.{name}_proj.": "self_attn.attn.in_proj_" for name in "qkv"},
            "self_attn.out_proj.": "self_attn.attn.out_proj.",
            "self_attn_layer_norm.": "norms.1.",
            "final_layer_norm.": "norms.2.",
            "fc1.": "ffn.layers.0.0.",
            "fc2.": "ffn.layers.1.",
        },
    ),
    (
        rf"{TRANSFORMER}\.",
        "panoptic_head.",
        {
            "queries_features.": "query_feat.",
            "queries_embedder.": "query_embed.",
            "level_embed.": "level_embed.",
            "input_projections.": "decoder_input_projs.",
            "decoder.layernorm.": "transformer_decoder.post_norm.",
            **{f"decoder.mask_predictor.mask_embedder.{i}.0.": f"mask_embed.{2 * i}." for i in range(3)},
        },
    ),
    ("", "panoptic_head.", {"class_predictor.": "cls_embed."}),
)


@dataclass(frozen=True, slots=True)
class Source:
    """Where a tensor of transformers comes from: mmdet's name, as in 3.x, and which part of it."""

    name: str
    part: Part = "whole"


def source_of(key: str) -> Source:
    """For a name of transformers."""
    for prefix, source, names in _GROUPS:
        if found := re.match(prefix, key):
            rest = key[found.end() :]
            start, new = next((start, new) for start, new in names.items() if rest.startswith(start))
            part: Part = next((part for mark, part in _THIRDS.items() if mark in key), "whole")
            return Source(found.expand(source) + new + rest[len(start) :], part)
    raise AssertionError(f"no rule for {key}")


def source_shapes(manifest: Mapping[str, Shape]) -> dict[str, Shape]:
    """{name of transformers: shape} -> {mmdet's name: shape} of the same tensors."""
    found = {}
    for key, shape in manifest.items():
        source = source_of(key)
        rows = 3 * shape[0] if source.part in {"first", "second", "third"} else shape[0]
        found[source.name] = (rows, *shape[1:])
    return found


def infer_config(shapes: Mapping[str, Shape], class_names: tuple[str, ...] | None = None) -> Mask2FormerConfig:
    """The sizes behind the shapes of mmdet's tensors (names of 3.x); KeyError names a tensor that has to be there."""
    head, decoder = "panoptic_head", "panoptic_head.pixel_decoder"
    stages = range(_count(shapes, r"backbone\.stages\.(\d+)\."))
    blocks = [f"backbone.stages.{stage}.blocks" for stage in stages]
    tables = [shapes[f"{block}.0.attn.w_msa.relative_position_bias_table"] for block in blocks]
    embed_dim = shapes["backbone.patch_embed.projection.weight"][0]
    swin = SwinDims(
        embed_dim=embed_dim,
        depths=tuple(_count(shapes, rf"{re.escape(block)}\.(\d+)\.") for block in blocks),
        num_heads=tuple(heads for _, heads in tables),
        window_size=(math.isqrt(tables[0][0]) + 1) // 2,
        patch_size=shapes["backbone.patch_embed.projection.weight"][-1],
        mlp_ratio=shapes["backbone.stages.0.blocks.0.ffn.layers.0.0.weight"][0] / embed_dim,
        qkv_bias="backbone.stages.0.blocks.0.attn.w_msa.qkv.bias" in shapes,
    )
    num_queries, hidden_dim = shapes[f"{head}.query_feat.weight"]
    num_classes = shapes[f"{head}.cls_embed.weight"][0] - 1
    if class_names is None or len(class_names) != num_classes:
        class_names = tuple(f"LABEL_{index}" for index in range(num_classes))
    places = shapes[f"{decoder}.encoder.layers.0.self_attn.attention_weights.weight"][0]
    mask_feature_size, feature_size = shapes[f"{decoder}.mask_feature.weight"][:2]
    dims = HeadDims(
        feature_size=feature_size,
        mask_feature_size=mask_feature_size,
        hidden_dim=hidden_dim,
        encoder_layers=_count(shapes, rf"{re.escape(decoder)}\.encoder\.layers\.(\d+)\."),
        encoder_feedforward_dim=shapes[f"{decoder}.encoder.layers.0.ffn.layers.0.0.weight"][0],
        decoder_layers=1 + _count(shapes, rf"{head}\.transformer_decoder\.layers\.(\d+)\."),
        dim_feedforward=shapes[f"{head}.transformer_decoder.layers.0.ffn.layers.0.0.weight"][0],
        num_attention_heads=places // (NUM_LEVELS * NUM_POINTS),
        num_queries=num_queries,
        enforce_input_projection=f"{head}.decoder_input_projs.0.weight" in shapes and feature_size == hidden_dim,
    )
    return Mask2FormerConfig(swin, dims, class_names)


def _count(names: Iterable[str], pattern: str) -> int:
    """How many numbers the group of a pattern takes, from 0 on."""
    return len({found[1] for name in names if (found := re.match(pattern, name))})
