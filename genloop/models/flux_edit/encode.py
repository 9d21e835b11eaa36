"""What a request is conditioned on: image tokens by Qwen2-VL, text tokens by T5, the empty text by CLIP.

Qwen2-VL reads its chat template around the picture, and nothing of the text after the picture can reach the picture's
tokens, as attention is causal: the sequence ends with the picture. The prompt steers through T5 alone.
N = image tokens of a picture, in rows and columns of its grid, Q, D = widths of Qwen2-VL and of the text tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genloop.models.flux_edit.drawing import Focus
from genloop.models.flux_edit.embedder import Connector
from genloop.models.flux_edit.focus import focus_map

OPENING = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<|vision_start|>"
CLOSING = "<|vision_end|>"
T5_TOKENS = 256
_CELL = 28 * 28  # pixels of an image token
TOKENS_WITH_PROMPT, TOKENS_ALONE = 256, 512  # of a picture, about


@dataclass(frozen=True, slots=True)
class Conditions:
    """Of one request, on the CPU."""

    picture: Tensor  # (N, D) tokens of the picture that is edited
    reference: Tensor | None  # (M, D) of the reference picture
    text: Tensor | None  # (256, D) of T5; None without a prompt
    pooled: Tensor  # (P,) of CLIP for the empty text
    grid: tuple[int, int]  # rows and columns of the tokens that the transformer reads: of the reference, or the picture


def picture_tokens(model: Any, processor: Any, tokenizer: Any, picture: np.ndarray, *, num_tokens: int) -> Tensor:
    """(H, W, 3) uint8 -> (rows, columns, Q) float32: the last hidden states of about `num_tokens` image tokens."""
    budget = num_tokens * _CELL
    size = {"shortest_edge": budget, "longest_edge": budget}
    pixels = processor(images=[picture], size=size, return_tensors="pt")
    grid, merge = pixels["image_grid_thw"], model.config.vision_config.spatial_merge_size
    rows, columns = (int(side) // merge for side in grid[0, 1:])
    image = model.config.image_token_id
    before, after = (tokenizer.encode(text, add_special_tokens=False) for text in (OPENING, CLOSING))
    ids = torch.tensor([[*before, *[image] * (rows * columns), *after]])
    device = next(model.parameters()).device
    with torch.inference_mode():
        hidden = model(
            input_ids=ids.to(device),
            pixel_values=pixels["pixel_values"].to(device, next(model.parameters()).dtype),
            image_grid_thw=grid.to(device),
            mm_token_type_ids=(ids == image).long().to(device),
            use_cache=False,
        ).last_hidden_state
    return hidden[0, len(before) : len(before) + rows * columns].float().cpu().view(rows, columns, -1)


def connect(connector: Connector, tokens: Tensor, focus: Focus | None) -> Tensor:
    """(rows, columns, Q), weighed by the focus before the connector, as released -> (N, D).

    A token of weight 0 becomes the connector's bias.
    """
    if focus is not None:
        rows, columns = tokens.shape[:2]
        weights = focus_map(rows, columns, focus.center_x, focus.center_y, focus.radius, published=focus.published)
        tokens = tokens * torch.from_numpy(weights)[..., None]
    with torch.inference_mode():
        weight = connector.linear.weight
        return connector(tokens.flatten(0, 1).to(weight)).float().cpu()


def text_tokens(model: Any, tokenizer: Any, prompts: Sequence[str]) -> Tensor:
    """-> (B, 256, D) of T5, padded and without a mask, as Flux was trained."""
    read = tokenizer(list(prompts), padding="max_length", max_length=T5_TOKENS, truncation=True, return_tensors="pt")
    with torch.inference_mode():
        return model(read.input_ids.to(next(model.parameters()).device), output_hidden_states=False)[0].float().cpu()


def pooled_text(model: Any, tokenizer: Any, text: str = "") -> Tensor:
    """-> (P,) the pooled output of CLIP; of the empty text, as the released code has it for every request."""
    read = tokenizer([text], padding="max_length", max_length=77, truncation=True, return_tensors="pt")
    with torch.inference_mode():
        return model(read.input_ids.to(next(model.parameters()).device)).pooler_output[0].float().cpu()
