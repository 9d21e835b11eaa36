"""Show-o models: fresh, from a checkpoint folder in one of the public layouts, and written as one."""

from pathlib import Path
from typing import Any

import torch

from genloop.checkpoint import compare_manifest, load_tensors, save_folder
from genloop.models.common.text import FileTokenizer, TextTokenizer, check_text_tokenizer
from genloop.models.showo.config import ShowOConfig, read_showo_config, showo_manifest
from genloop.models.showo.model import ShowO


def build_showo(
    config: ShowOConfig,
    *,
    seed: int,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    text_tokenizer: TextTokenizer | None = None,
) -> ShowO:
    """A model with fresh weights: N(0, initializer_range) for matrices, 0 for biases, 1 for norms; keyed by `seed`."""
    model = _empty_showo(config, text_tokenizer)
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for key, shape in showo_manifest(config).items():
        if len(shape) == 2:
            value = torch.randn(shape, generator=generator) * config.phi.initializer_range
        else:
            value = torch.ones(shape) if "layernorm.weight" in key else torch.zeros(shape)
        state[key] = value.to(device=device, dtype=dtype)
    model.load_state_dict(state, assign=True)
    return _finish(model, device)


def load_showo(
    folder: Path,
    *,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    text_tokenizer: Path | TextTokenizer | None = None,
    max_seq_length: int | None = None,
) -> ShowO:
    """A checkpoint folder in one of the public layouts -> the model, in eval mode.

    The text tokenizer is `tokenizer/` in the folder, unless the caller gives a folder or a tokenizer. Missing,
    unexpected or misshapen tensors are a ValueError that lists them.
    """
    config = read_showo_config(folder, max_seq_length=max_seq_length)
    tokenizer = _find_tokenizer(folder, text_tokenizer)
    if tokenizer is not None:
        check_text_tokenizer(tokenizer, config.llm_vocab_size, folder)
    tensors = load_tensors(folder, device=device)
    compare_manifest(showo_manifest(config), {key: tuple(value.shape) for key, value in tensors.items()}, folder)
    model = _empty_showo(config, tokenizer)
    model.load_state_dict({key: value.to(dtype) for key, value in tensors.items()}, assign=True)
    return _finish(model, device).eval()


def save_showo(model: ShowO, folder: Path) -> None:
    """Write the public layout: config.json, phi/config.json, tokenizer/, pytorch_model.safetensors, manifest.json."""
    files: dict[str, Any] = {"config.json": model.config.to_json(), "phi/config.json": model.config.phi_to_json()}
    tokenizer = model._text_tokenizer
    if isinstance(tokenizer, FileTokenizer):
        files |= {f"tokenizer/{name}": content for name, content in tokenizer.files().items()}
    save_folder(folder, model.state_dict(), files)


def _find_tokenizer(folder: Path, given: Path | TextTokenizer | None) -> TextTokenizer | None:
    if isinstance(given, Path):
        return FileTokenizer(given)
    if given is None and (folder / "tokenizer").is_dir():
        return FileTokenizer(folder / "tokenizer")
    return given


def _empty_showo(config: ShowOConfig, text_tokenizer: TextTokenizer | None) -> ShowO:
    """The modules without memory behind them: nothing is drawn from the global generator."""
    with torch.device("meta"):
        return ShowO(config, text_tokenizer)


def _finish(model: ShowO, device: str) -> ShowO:
    """Give the rotary table, which no checkpoint holds, its values."""
    phi = model.showo
    phi.model.rotary_emb = type(phi.model.rotary_emb)(config=phi.config).to(device)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    return model
