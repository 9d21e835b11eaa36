"""A CLIP folder in the layout of transformers: its config, tokenizer and pixels, read by transformers and checked.

config.json, the weights, and the tokenizer's files (tokenizer.json, or vocab.json and merges.txt) are read;
preprocessor_config.json, when it is there, says how pixels are prepared. T = texts, L = context length.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genloop.models.clip.config import ARCHITECTURES, CONFIG_FILE, OPENAI, QUICK, check_channels, is_transformers_folder
from genloop.models.common.dims import check_layers
from genloop.models.common.pretrained import check_pretrained, errors_in_one_line
from genloop.reading import read_json_object
from genloop.registry import did_you_mean, require

BUFFERS = ("text_model.embeddings.position_ids", "vision_model.embeddings.position_ids")  # of older files: counted
_LEGACY_END = 2  # what the first published configs call the end of a text; transformers then looks for the highest id
_TOKENIZER_FILES = (("tokenizer.json",), ("vocab.json", "merges.txt"))
_WORDS = {  # transformers' words -> open_clip's
    "vision": {"image_size": "image_size", "num_hidden_layers": "layers", "hidden_size": "width"}
    | {"patch_size": "patch_size"},
    "text": {"max_position_embeddings": "context_length", "vocab_size": "vocab_size", "hidden_size": "width"}
    | {"num_attention_heads": "heads", "num_hidden_layers": "layers"},
}


def check_transformers_folder(folder: Path, architecture: str | None = None, published_as: str | None = None) -> None:
    """ValueError unless config, tensors, tokenizer and pixels belong together. Reads no weights."""
    config = read_clip_config(folder, architecture, published_as)
    check_pretrained(require("transformers").CLIPModel, folder, ignored=BUFFERS, config=config)
    ClipTokenizer(folder, config.text_config)
    read_pixels(folder, config.vision_config.image_size)


def read_clip_config(folder: Path, architecture: str | None = None, published_as: str | None = None) -> Any:
    """transformers' CLIPConfig; ValueError when it is none, not that of `architecture`, or has another activation."""
    if not is_transformers_folder(folder):
        other = "; it has open_clip's layout: use backend=open_clip" if (folder / CONFIG_FILE).is_file() else ""
        raise ValueError(
            f"{folder} holds no config.json with model_type 'clip': not a CLIP folder of transformers{other}"
        )
    transformers, where = require("transformers"), folder / "config.json"
    check_layers(read_json_object(where), where)
    with errors_in_one_line(where):
        config = transformers.CLIPConfig.from_pretrained(str(folder), local_files_only=True)
    acts, known = [getattr(config, f"{side}_config").hidden_act for side in _WORDS], transformers.activations.ACT2FN
    for side, act in zip(_WORDS, acts, strict=True):
        if act not in known:
            raise ValueError(f"{where}: unknown {side}_config.hidden_act {act!r}{did_you_mean(act, known)}")
    if published_as == OPENAI and set(acts) != {QUICK}:
        raise ValueError(
            f"{folder}: config.json says hidden_act {acts[0]!r} for images and {acts[1]!r} for texts, weights "
            f"published as 'openai' need {QUICK!r}; mend the config, or use pretrained=null for other weights"
        )
    if architecture is not None:
        _check_sizes(sizes(config), architecture, folder)
    return config


def sizes(config: Any) -> dict[str, Any]:
    """A CLIPConfig of transformers -> the sizes in open_clip's words."""
    towers = {
        f"{side}_cfg": {ours: getattr(getattr(config, f"{side}_config"), theirs) for theirs, ours in words.items()}
        for side, words in _WORDS.items()
    }
    return {"embed_dim": config.projection_dim, **towers}


def _check_sizes(found: dict[str, Any], architecture: str, folder: Path) -> None:
    if architecture not in ARCHITECTURES:
        raise ValueError(
            f"unknown architecture {architecture!r}{did_you_mean(architecture, ARCHITECTURES)} "
            f"({', '.join(ARCHITECTURES)}); folders of transformers say it themselves: use architecture=null"
        )
    wanted = ARCHITECTURES[architecture]
    differ = [
        f"{group.removesuffix('_cfg')}.{key} is {found[group][key]}, not {value}"
        for group in ("vision_cfg", "text_cfg")
        for key, value in wanted[group].items()
        if found[group][key] != value
    ]
    if found["embed_dim"] != wanted["embed_dim"]:
        differ.append(f"embed_dim is {found['embed_dim']}, not {wanted['embed_dim']}")
    if differ:
        raise ValueError(f"{folder} does not hold a {architecture}: {', '.join(differ)}; use that one's folder")


class ClipTokenizer:
    """The folder's own tokenizer: begin, words, end, and ends up to the context length."""

    def __init__(self, folder: Path, text_config: Any) -> None:
        if not any(all((folder / name).is_file() for name in names) for names in _TOKENIZER_FILES):
            raise FileNotFoundError(
                f"{folder} holds no tokenizer.json, and no vocab.json with merges.txt; put the tokenizer's files there"
            )
        tokenizer_class = require("transformers").CLIPTokenizer
        with errors_in_one_line(f"{folder}: its tokenizer"):
            self._tokenizer = tokenizer_class.from_pretrained(str(folder), local_files_only=True)
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


def read_pixels(folder: Path, size: int) -> dict[str, Any]:
    """{interpolation, mean, std} of preprocessor_config.json; without it, or a key: OpenAI's."""
    path, processor_class = folder / "preprocessor_config.json", require("transformers").CLIPImageProcessorPil
    given = read_json_object(path) if path.is_file() else {}
    with errors_in_one_line(path):
        found = processor_class(**{"size": {"shortest_edge": size}, "crop_size": size, **given})
        steps = [getattr(found, f"do_{step}") for step in ("resize", "center_crop", "rescale", "normalize")]
        sides = {side for box in (found.size, found.crop_size) for side in dict(box).values() if side is not None}
        interpolation = require("PIL.Image").Resampling(found.resample).name.lower()
    if not all(steps) or sides != {size} or interpolation not in ("bicubic", "bilinear"):
        raise ValueError(
            f"{path}: only the shortest side resized to {size} pixels (bicubic or bilinear), the centre cut out and "
            "normalised are supported; use the file that was published with the weights"
        )
    check_channels(found.image_mean, "mean", f"{path}: image_mean")
    check_channels(found.image_std, "std", f"{path}: image_std")
    return {"interpolation": interpolation, "mean": found.image_mean, "std": found.image_std}
