"""Folders that stand in for published checkpoints which are not here: their shapes, without values.

`shape` of an entry in registry.yaml says what is public: the family, the type of the weights, and the config.json. A
folder made of it has that config, a weights file of holes that takes no room on a disk, and a tokenizer that cuts
texts into words. What reads shapes alone, as `genloop plan` does on the meta device, cannot tell it from the real one.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ckpts.resolve import Entry, instead_of
from genloop.checkpoint import Shape
from genloop.registry import load, require
from genloop.rundir import write_json
from genloop.safetensors_file import write_shapes

_READERS = {  # family -> what reads its config.json, and what lists its tensors
    "showo": ("genloop.models.showo.config:read_showo_config", "genloop.models.showo.config:showo_manifest"),
    "magvit2": ("genloop.models.magvit2.config:read_magvit2_config", "genloop.models.magvit2.config:magvit2_manifest"),
    "llava": ("genloop.models.llava.config:read_llava_config", "genloop.models.llava.config:llava_manifest"),
    "mask2former": (
        "genloop.models.mask2former.config:read_mask2former_config",
        "genloop.models.mask2former.config:mask2former_manifest",
    ),
    "clip": ("genloop.models.clip.folder:read_clip_config", "ckpts.stand_in:clip_manifest"),
}
_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
_CLIP_TOKENS = ["<|startoftext|>", "<|endoftext|>"]


@contextmanager
def stand_ins(folder: Path) -> Iterator[list[str]]:
    """While the body runs, known checkpoints that are not here resolve to stand-ins in `folder`, and are listed."""
    used: list[str] = []

    def make(entry: Entry) -> Path | None:
        if entry.shape is None:
            return None
        if entry.name not in used:
            write_stand_in(entry, folder / entry.name)
            used.append(entry.name)
        return folder / entry.name

    with instead_of(make):
        yield used


def write_stand_in(entry: Entry, folder: Path) -> None:
    """Make the folder of an entry that has a `shape`."""
    shape = entry.shape
    assert shape is not None
    folder.mkdir(parents=True)
    if shape["family"] == "text_tokenizer":
        _write_tokenizer(folder)
        return
    if shape["family"] == "flux_edit":
        _write_flux_edit(shape, folder)
        return
    write_json(folder / "config.json", shape["config"])
    read, manifest = map(load, _READERS[shape["family"]])
    write_shapes(folder / "model.safetensors", manifest(read(folder)), shape["dtype"])
    tokenizers: dict[str, Callable[[Path], None]] = {"llava": _write_tokenizer, "clip": _write_clip_tokenizer}
    if shape["family"] in tokenizers:
        tokenizers[shape["family"]](folder)


def clip_manifest(config: Any) -> dict[str, Shape]:
    """transformers' CLIPConfig -> {key: shape}"""
    with require("torch").device("meta"):
        model = require("transformers").CLIPModel(config)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def _write_flux_edit(shape: Mapping[str, Any], folder: Path) -> None:
    """A folder a component; what has no weights is there by name alone."""
    for place, config in shape["config"].items():
        (folder / place).mkdir(parents=True)
        write_json(folder / place / "config.json", config)
        package = "diffusers" if "_class_name" in config else "transformers"
        name = "diffusion_pytorch_model" if package == "diffusers" else "model"
        write_shapes(folder / place / f"{name}.safetensors", _stock_manifest(package, config), shape["dtype"])
    for name in ("connector.pt", "t5_embedder.pt"):
        (folder / "qwen2-vl" / name).touch()
    for name in ("tokenizer", "tokenizer_2", "scheduler"):
        (folder / "flux" / name).mkdir()
    write_json(folder / "flux" / "scheduler" / "scheduler_config.json", {})


def _stock_manifest(package: str, config: Mapping[str, Any]) -> dict[str, Shape]:
    """config.json of diffusers or transformers -> {key: shape}"""
    library = require(package)
    with require("torch").device("meta"):
        if package == "diffusers":
            model = getattr(library, config["_class_name"]).from_config(config)
        else:
            rest = {key: value for key, value in config.items() if key not in ("architectures", "model_type")}
            kind = getattr(library, config["architectures"][0])
            model = kind(library.CONFIG_MAPPING[config["model_type"]](**rest))
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def _write_tokenizer(folder: Path) -> None:
    """Words and punctuation are a token each, which is about what English prompts take."""
    library = require("tokenizers")
    vocabulary = [("<unk>", 0.0), ("yes", -1.0), ("no", -1.0)]
    tokenizer = library.Tokenizer(library.models.Unigram(vocabulary, 0, False))
    tokenizer.pre_tokenizer = library.pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(_TOKENS)
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(folder / "tokenizer_config.json", {"bos_token": _TOKENS[0], "eos_token": _TOKENS[0]})


def _write_clip_tokenizer(folder: Path) -> None:
    """Bytes, as CLIP's own without its merges; every text is filled up to the same length anyway."""
    alphabet = sorted(require("tokenizers").pre_tokenizers.ByteLevel.alphabet())
    tokens = [*alphabet, *(f"{letter}</w>" for letter in alphabet), *_CLIP_TOKENS]
    write_json(folder / "vocab.json", {token: place for place, token in enumerate(tokens)})
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
