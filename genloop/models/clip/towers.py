"""CLIP from a folder in the layout of transformers, as OpenAI published it: the same vectors as through open_clip.

Needs neither open_clip nor torchvision. B = images, T = texts, D = embedding size, L = context length, S = image size.
"""

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from genloop.models.clip.config import forward_flops
from genloop.models.clip.folder import BUFFERS, ClipTokenizer, read_clip_config, read_pixels, sizes
from genloop.models.clip.load import ClipEmbedder, Preprocessing
from genloop.models.common.pretrained import load_pretrained
from genloop.registry import require


class ClipTowers(nn.Module):
    """transformers' CLIPModel with open_clip's interface."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def encode_image(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, D)"""
        return self.model.visual_projection(self.model.vision_model(pixel_values=pixels).pooler_output)

    def encode_text(self, tokens: Tensor) -> Tensor:
        """(T, L) -> (T, D). Attention looks back only, so what stands behind the end of a text is never seen."""
        return self.model.text_projection(self.model.text_model(input_ids=tokens).pooler_output)


def load_clip_transformers(
    folder: Path, *, architecture: str | None = None, published_as: str | None = None, **settings: Any
) -> ClipEmbedder:
    """The model in `folder`, with weights in float32; its activation and the named architecture are checked.

    `settings` are device, rows_per_forward and precision of the ClipEmbedder.
    """
    config = read_clip_config(folder, architecture, published_as)
    model = load_pretrained(
        require("transformers").CLIPModel, folder, ignored=BUFFERS, config=config, attn_implementation="sdpa"
    )
    size = config.vision_config.image_size
    return ClipEmbedder(
        ClipTowers(model),
        ClipTokenizer(folder, config.text_config),
        Preprocessing(size, **read_pixels(folder, size)),
        flops=forward_flops(sizes(config)),
        **settings,
    )
