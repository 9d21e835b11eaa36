"""CLIP from a folder in the layout of transformers, as OpenAI published it: the same vectors as through open_clip.

config.json, the weights, and the tokenizer's files (tokenizer.json, or vocab.json and merges.txt) are read;
preprocessor_config.json, when it is there, says how pixels are prepared. Needs neither open_clip nor torchvision.

B = images, T = texts, D = embedding size, L = context length, S = image size.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from genloop.checkpoint import compare_manifest, load_tensors, read_json, read_shapes
from genloop.models.clip import ClipEmbedder, Preprocessing
from genloop.models.clip_config import Precision, check_activation, check_transformers_folder, forward_flops, sizes
from genloop.registry import require

_LEGACY_END = 2  # what the first published configs call the end of a text; transformers then looks for the highest id
_RESAMPLING = {2: "bilinear", 3: "bicubic"}  # Pillow's numbers
_BUFFER = ".position_ids"  # in older files; counted, not learned


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
        if not (folder / "tokenizer.json").is_file() and not all(
            (folder / name).is_file() for name in ("vocab.json", "merges.txt")
        ):
            raise FileNotFoundError(
                f"{folder} holds no tokenizer.json, and no vocab.json with merges.txt; put the tokenizer's files there"
            )
        self._tokenizer = require("transformers").CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)
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
        _preprocessing(folder, config.vision_config.image_size),
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
    found = {key: shape for key, shape in read_shapes(folder).items() if not key.endswith(_BUFFER)}
    compare_manifest({key: tuple(value.shape) for key, value in model.state_dict().items()}, found, folder)
    tensors = load_tensors(folder)
    model.load_state_dict({key: tensors[key].float() for key in found}, assign=True)
    for tower in (model.text_model, model.vision_model):
        positions = tower.embeddings.position_embedding.num_embeddings
        tower.embeddings.position_ids = torch.arange(positions)[None]
    return model


def _preprocessing(folder: Path, size: int) -> Preprocessing:
    """From preprocessor_config.json, of which every key, and itself, may be absent: then it is OpenAI's."""
    path = folder / "preprocessor_config.json"
    config: Mapping[str, Any] = read_json(path) if path.is_file() else {}
    steps = [config.get(f"do_{step}", True) for step in ("resize", "center_crop", "rescale", "normalize")]
    named = {_side(config.get("size", size)), _side(config.get("crop_size", size)), size}
    resampling = _RESAMPLING.get(config.get("resample", 3))
    if not all(steps) or len(named) > 1 or resampling is None:
        raise ValueError(
            f"{path}: only the shortest side resized to {size} pixels (bicubic or bilinear), the centre cut out and "
            "normalised are supported; use the file that was published with the weights"
        )
    given = {
        ours: config[theirs] for ours, theirs in (("mean", "image_mean"), ("std", "image_std")) if theirs in config
    }
    return Preprocessing(size, interpolation=resampling, **given)


def _side(value: Any) -> Any:
    """224, {"shortest_edge": 224} or {"height": 224, "width": 224} -> 224."""
    if not isinstance(value, Mapping):
        return value
    return next(iter(set(value.values()))) if len(set(value.values())) == 1 else tuple(value.values())
