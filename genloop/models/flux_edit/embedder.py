"""Image tokens of Qwen2-VL in place of a text: the connector, and the embedder that takes tokens of two kinds.

B = pictures, N = image tokens, T = tokens of T5 (0 or 256), Q, D, I = widths of Qwen2-VL, of the text (4,096) and of
the transformer (3,072).
"""

import torch
from torch import Tensor, nn


class Connector(nn.Module):
    """(B, N, Q) last hidden states at the image tokens -> (B, N, D)"""

    def __init__(self, vision_width: int, text_width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(vision_width, text_width)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, Q) -> (B, N, D)"""
        return self.linear(tokens)


class DualContextEmbedder(nn.Module):
    """Embeds the first N tokens as image tokens and the others as T5's: (B, N + T, D) -> (B, N + T, I).

    It stands in the place of `context_embedder` of a stock FluxTransformer2DModel or FluxControlNetModel, whose own one
    was tuned to image tokens; the original one of T5 lies beside the checkpoint. So every stock pipeline takes prompt
    embeddings of both kinds behind each other, as the released code computes them.
    """

    def __init__(self, image: nn.Linear, text: nn.Linear | None) -> None:
        super().__init__()
        self.image, self.text = image, text
        self.num_image_tokens: int | None = None  # of the batch that is drawn; None: all are

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N + T, D) -> (B, N + T, I)"""
        split = tokens.shape[1] if self.num_image_tokens is None else self.num_image_tokens
        if split == tokens.shape[1]:
            return self.image(tokens)
        assert self.text is not None, "tokens of T5 without its embedder"
        return torch.cat([self.image(tokens[:, :split]), self.text(tokens[:, split:])], dim=1)


def prompt_embeddings(image_tokens: Tensor, text_tokens: Tensor | None) -> Tensor:
    """(B, N, D) and (B, T, D) or none -> (B, N + T, D)"""
    return image_tokens if text_tokens is None else torch.cat([image_tokens, text_tokens.to(image_tokens)], dim=1)
