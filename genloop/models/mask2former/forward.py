"""Mask2Former's forward pass (Cheng et al. 2022) over the modules of transformers: the same numbers, with less work.

What nobody reads is not computed: logits and attention masks beyond those that the next layer or the caller looks at,
a copy of a mask for each head before it is binary. Deformable attention (Zhu et al. 2021) takes some places at a time,
so that what it samples stays in the processor's cache.

B = images, D = channels, H = heads, L = levels, K = points of a level, N = places of all levels, S = places of one,
Q = queries, C = classes.
"""

import math
from collections.abc import Sequence
from itertools import cycle
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate, relu

from genloop.models.common.footprint import kind_of

_RUN = 512  # places of deformable attention at a time on a CPU


def forward(network: Any, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Normalised pixels (B, 3, h, w) -> class logits (B, Q, C + 1) and mask logits (B, Q, h / 4, w / 4)"""
    pixel_level = network.model.pixel_level_module
    levels, fine = _decode_pixels(pixel_level.decoder, pixel_level.encoder(pixels).feature_maps)
    queries, masks = _decode_queries(network.model.transformer_module, levels, fine)
    return network.class_predictor(queries), masks


def _decode_pixels(decoder: Any, maps: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
    """Swin's maps, finest first -> L levels (B, D, h, w), coarsest first, and what masks are made of, (B, D, h, w)"""
    inputs = [project(x) for project, x in zip(decoder.input_projections, reversed(maps))]
    sizes = [x.shape[-2:] for x in inputs]
    positions = torch.cat([_positions(x) + own for x, own in zip(inputs, decoder.level_embed)], dim=1)
    hidden = torch.cat([x.flatten(2).transpose(1, 2) for x in inputs], dim=1)  # (B, N, D)
    centers = _centers(sizes, hidden.device)
    for layer in decoder.encoder.layers:
        attended = _attend_deformably(layer.self_attn, hidden + positions, hidden, sizes, centers)
        hidden = layer.self_attn_layer_norm(hidden + attended)
        hidden = layer.final_layer_norm(hidden + layer.fc2(relu(layer.fc1(hidden))))
    parts = hidden.split([height * width for height, width in sizes], dim=1)
    levels = [part.transpose(1, 2).unflatten(2, size) for part, size in zip(parts, sizes)]
    fine = levels[-1]
    finer = reversed(maps[: decoder.num_fpn_levels])
    for lateral, output, x in zip(decoder.lateral_convolutions, decoder.output_convolutions, finer):
        beside = lateral(x)
        fine = output(beside + interpolate(fine, beside.shape[-2:], mode="bilinear", align_corners=False))
    return levels, decoder.mask_projection(fine)


def _attend_deformably(
    attention: Any, queries: Tensor, features: Tensor, sizes: Sequence[torch.Size], centers: Tensor
) -> Tensor:
    """Each place looks at K points of each level, where its query says: 2 x (B, N, D), centers (N, 2) -> (B, N, D)"""
    (num_images, num_places, _), device = queries.shape, queries.device
    heads, points = attention.n_heads, attention.n_points
    parts = attention.value_proj(features).split([height * width for height, width in sizes], dim=1)
    planes = [part.transpose(1, 2).reshape(num_images * heads, -1, *size) for part, size in zip(parts, sizes)]
    extents = torch.tensor([(width / 2, height / 2) for height, width in sizes], device=device)
    extents = extents.repeat_interleave(points, dim=0).repeat(heads, 1).flatten()
    grids = attention.sampling_offsets(queries).div_(extents)
    grids = grids.add_((2 * centers).repeat(1, heads * len(sizes) * points)).sub_(1)  # -1 to 1 inside of a level
    grids = grids.unflatten(-1, (heads, len(sizes), points, 2)).permute(3, 0, 2, 1, 4, 5).flatten(1, 2)
    weights = attention.attention_weights(queries).unflatten(-1, (heads, -1)).softmax(dim=-1)
    weights = weights.transpose(1, 2).flatten(0, 1).unsqueeze(1)  # (B * H, 1, N, L * K)
    found = queries.new_empty(num_images * heads, planes[0].shape[1], num_places)
    step = _RUN if kind_of(device) == "cpu" else num_places
    for run in (slice(start, start + step) for start in range(0, num_places, step)):
        chosen = grids[:, :, run].flatten(2, 3).unsqueeze(2)  # L x (B * H, 1, n * K, 2): long rows are sampled faster
        sampled = [grid_sample(*pair, align_corners=False) for pair in zip(planes, chosen)]  # (B * H, D / H, 1, n * K)
        values = torch.stack([one.squeeze(2).unflatten(-1, (-1, points)) for one in sampled], dim=-2).flatten(-2)
        torch.sum(values.mul_(weights[:, :, run]), dim=-1, out=found[..., run])
    return attention.output_proj(found.view(num_images, -1, num_places).transpose(1, 2).contiguous())


def _decode_queries(transformer: Any, levels: Sequence[Tensor], fine: Tensor) -> tuple[Tensor, Tensor]:
    """Levels and the finest features (B, D, h, w) -> queries (B, Q, D) and mask logits (B, Q, h, w)"""
    decoder = transformer.decoder
    projected = [project(x) for project, x in zip(transformer.input_projections, levels)]
    positions = [_positions(x).transpose(0, 1) for x in projected]  # (S, 1, D)
    features = [
        (x.flatten(2) + own[:, None]).permute(2, 0, 1)  # (S, B, D)
        for x, own in zip(projected, transformer.level_embed.weight)
    ]
    hidden, queries = (
        table.weight.unsqueeze(1).repeat(1, len(fine), 1)  # (Q, B, D)
        for table in (transformer.queries_features, transformer.queries_embedder)
    )
    seen = [_middles(fine, x.shape[-2:]) for x in levels]
    for layer, level in zip(decoder.layers, cycle(range(len(levels)))):
        outside = _outside(_masks(decoder, hidden, seen[level]), levels[level].shape[-2:])
        outside = outside.repeat_interleave(decoder.mask_predictor.num_heads, dim=0)
        hidden = layer(hidden, level, None, positions, queries, features, encoder_attention_mask=outside)[0]
    return decoder.layernorm(hidden).transpose(0, 1), _masks(decoder, hidden, fine)


def _masks(decoder: Any, hidden: Tensor, fine: Tensor) -> Tensor:
    """(Q, B, D), (B, D, h, w) -> mask logits (B, Q, h, w)"""
    embeddings = decoder.mask_predictor.mask_embedder(decoder.layernorm(hidden).transpose(0, 1))
    return torch.einsum("bqc,bchw->bqhw", embeddings, fine)


def _outside(masks: Tensor, size: torch.Size) -> Tensor:
    """Mask logits -> (B, Q, S), True where a query must not look: outside of its mask, unless that is empty"""
    outside = (interpolate(masks, size, mode="bilinear", align_corners=False).sigmoid() < 0.5).flatten(2)
    return outside & ~outside.all(dim=-1, keepdim=True)


def _middles(x: Tensor, size: torch.Size) -> Tensor:
    """What of (B, D, h, w) a bilinear resize to a half, a quarter, ... reads: two rows and columns of each step"""
    steps = [own // wanted for own, wanted in zip(x.shape[-2:], size)]
    if any(step % 2 or step * wanted != own for step, wanted, own in zip(steps, size, x.shape[-2:])):
        return x
    rows, columns = steps
    x = x.unflatten(-1, (-1, columns))[..., columns // 2 - 1 : columns // 2 + 1].flatten(-2)
    return x.unflatten(-2, (-1, rows))[..., rows // 2 - 1 : rows // 2 + 1, :].flatten(-3, -2)


def _positions(x: Tensor) -> Tensor:
    """(B, D, h, w) -> where each place is, as sines of its row and of its column: (1, h * w, D)"""
    half = x.shape[1] // 2
    steps = 10000 ** (2 * (torch.arange(half, device=x.device) // 2).float() / half)
    waves = []
    for side in x.shape[-2:]:
        places = torch.arange(1, side + 1, dtype=torch.float32, device=x.device)
        angles = (places / (places[-1] + 1e-6) * (2 * math.pi))[:, None] / steps
        waves.append(torch.stack((angles[:, 0::2].sin(), angles[:, 1::2].cos()), dim=2).flatten(1))  # (side, D / 2)
    rows, columns = waves[0][:, None].expand(-1, x.shape[-1], -1), waves[1].expand(x.shape[-2], -1, -1)
    return torch.cat((rows, columns), dim=-1).flatten(0, 1)[None]


def _centers(sizes: Sequence[torch.Size], device: torch.device) -> Tensor:
    """x and y of the middle of each place of each level, from 0 to 1: (N, 2)"""
    sides = [[(torch.arange(side, device=device) + 0.5) / side for side in size] for size in sizes]
    return torch.cat([torch.cartesian_prod(y, x).flip(-1) for y, x in sides])
