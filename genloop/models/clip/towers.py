"""CLIP from a folder in the layout of transformers, as OpenAI published it: the same vectors as through open_clip.

config.json, the weights, and the tokenizer's files (tokenizer.json, or vocab.json and merges.txt) are read;
preprocessor_config.json, when it is there, says how pixels are prepared. Needs neither open_clip nor torchvision.

B = images, T = texts, D = embedding size, L = context length, S = image size.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from genloop.checkpoint import compare_manifest, load_tensors, read_shapes
from genloop.models.clip.config import Precision, check_activation, check_transformers_folder, forward_flops, sizes
from genloop.models.clip.folder import BUFFER, check_tokenizer_files, read_pixels
from genloop.models.clip.load import ClipEmbedder, Preprocessing
from genloop.registry import require

_LEGACY_END = 2  # what the first published configs call the end of a text; transformers then looks for the highest id


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


class ClipTokenizer:
    """The folder's own tokenizer: begin, words, end, and ends up to the context length."""

    def __init__(self, folder: Path, text_config: Any) -> None:
        check_tokenizer_files(folder)
        self._tokenizer = _read_tokenizer(folder)
        self.length, end = text_config.max_position_embeddings, self._tokenizer.eos_token_id
        highest = max(self._tokenizer.get_vocab().values())
        wanted = highest if text_config.eos_token_id == _LEGACY_END else text_config.eos_token_id
        if end != wanted or highest >= text_config.vocab_size:
            raise ValueError(
                f"{folder}: the tokenizer ends texts with {end} and knows ids up to {highest}, config.json ends them "
                f"with {wanted} and has {text_config.vocab_size} ids; use the tokenizer that belongs to the weights"
            )

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """-> (T, L) int64"""
        end = self._tokenizer.eos_token_id
        cut = self._tokenizer(list(texts), truncation=True, max_length=self.length)["input_ids"]
        return torch.tensor([[*ids, *[end] * (self.length - len(ids))] for ids in cut])


def _read_tokenizer(folder: Path) -> Any:
    tokenizer_class = require("transformers").CLIPTokenizer
    try:
        return tokenizer_class.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # the library raises nothing narrower
        raise ValueError(f"{folder}: its tokenizer cannot be read ({error}); download its files again") from error


def load_clip_transformers(
    folder: Path,
    *,
    architecture: str | None = None,
    published_as: str | None = None,
    device: str = "cpu",
    rows_per_forward: int = 64,
    precision: Precision = "float32",
) -> ClipEmbedder:
    """The model in `folder`, with weights in float32; its activation and the named architecture are checked."""
    check_transformers_folder(folder, architecture, published_as)
    config = require("transformers").CLIPConfig.from_pretrained(str(folder), local_files_only=True)
    check_activation(config.to_dict(), published_as, folder)
    model = _build(config, folder)
    return ClipEmbedder(
        ClipTowers(model),
        ClipTokenizer(folder, config.text_config),
        Preprocessing(config.vision_config.image_size, **read_pixels(folder, config.vision_config.image_size)),
        device=device,
        rows_per_forward=rows_per_forward,
        precision=precision,
        flops=forward_flops(sizes(config.to_dict())),
    )


def _build(config: Any, folder: Path) -> Any:
    """The stock modules around the folder's tensors, in float32; nothing is drawn from the global generator."""
    config._attn_implementation = "sdpa"
    with torch.device("meta"):
        model = require("transformers").CLIPModel(config)
    found = {key: shape for key, shape in read_shapes(folder).items() if not key.endswith(BUFFER)}
    compare_manifest({key: tuple(value.shape) for key, value in model.state_dict().items()}, found, folder)
    tensors = load_tensors(folder)
    model.load_state_dict({key: tensors[key].float() for key in found}, assign=True)
    for tower in (model.text_model, model.vision_model):
        positions = tower.embeddings.position_embedding.num_embeddings
        tower.embeddings.position_ids = torch.arange(positions)[None]
    return model
