"""The chat model that a training starts from, with its adapters, and what is made of it at the end."""

import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from genloop.factories import Resolve
from genloop.hashing import sha256_tree
from genloop.job import loading
from genloop.models.qwen.chat import Chat
from genloop.models.qwen.config import ChatFolder, check_chat_folder, read_chat
from genloop.models.qwen.families import chat_of
from genloop.models.qwen.load import (
    build_chat_model,
    files_of,
    load_chat_model,
    quantised_layers,
    save_chat_model,
)
from genloop.models.qwen.model import ChatModel
from genloop.models.qwen.tokenizer import SPECIALS, tokenizer_files
from genloop.planning import Footprint
from genloop.training.adapters import add_adapters, check_adapters, load_adapters, merge_adapters, save_adapters
from genloop.training.objectives.conversations.keys import ChatTrainingKeys
from genloop.training.objectives.conversations.layers import LoraPart, layers_of, with_attention
from genloop.training.objectives.conversations.settings import ChatModelShape, ChatSettings
from genloop.training.parts import cast_parameters, choose_trained, lr_scale_of
from genloop.training.settings import LoraSettings

Quantise = Literal["none", "nf4"]
_NF4_BITS = 4.127  # of a weight: blocks of 64 share a scale of 8 bits, 256 of these one of 32


@dataclass(frozen=True, eq=False)
class Start:
    """What a model is made from: a checked folder with the digest of its files, or the sizes of a new one."""

    folder: ChatFolder
    digest: str  # "" for a new model
    files: Mapping[str, bytes]  # of tokenizer, template and image processor, for what is saved
    quantise: Quantise
    lora: LoraSettings
    lora_part: LoraPart
    adapter: Path | None
    seed: int
    dtype: torch.dtype

    def build(self, device: str, *, quantise: Quantise | None = None) -> ChatModel:
        """The model without adapters."""
        with loading():
            if not self.digest:
                return build_chat_model(self.folder.config, seed=self.seed, dtype=self.dtype, device=device)
            nf4 = (quantise or self.quantise) == "nf4"
            return load_chat_model(self.folder, dtype=self.dtype, device=device, nf4=nf4)

    def adapt(self, model: ChatModel) -> Any:
        """Put adapters into its layers, those of `adapter` or fresh ones -> what saves and merges them."""
        within = layers_of(model, self.lora_part)
        adapted = add_adapters(model, with_attention(self.lora, model, within), seed=self.seed, within=within)
        if self.adapter is not None and model.device.type != "meta":
            load_adapters(model, self.adapter)
        return adapted

    def save(self, model: ChatModel, folder: Path, dtype: torch.dtype) -> None:
        """Write a model of full weights as a folder that others load."""
        cast_parameters(model, dtype)
        save_chat_model(model, folder, self.files)

    def save_adapter(self, adapted: Any, folder: Path, name: str) -> None:
        """Write the adapters as peft reads them."""
        save_adapters(adapted, folder, base={"name": name, "sha256": self.digest})

    def merged(self, adapted: Any, adapter: Path, dtype: torch.dtype) -> ChatModel:
        """The model with its adapters added; where it was quantised, added to the weights as they were published."""
        if self.quantise == "none":
            return merge_adapters(adapted)
        full = replace(self, quantise="none", adapter=adapter, dtype=dtype)
        return merge_adapters(full.adapt(full.build("cpu")))


def start_of(keys: ChatTrainingKeys, resolve: Resolve, texts: Iterable[str], seed: int) -> tuple[Start, Chat]:
    """The model to start from and its chat; a new one gets a tokenizer of `texts`."""
    if keys.start is None:
        digest, files = "", tokenizer_files(texts, keys.model.vocab_size)
        chat = new_chat(keys.model, keys.chat, files)
    else:
        folder = resolve(keys.start)
        digest, files = sha256_tree(folder), files_of(folder)
        chat = chat_of(check_chat_folder(folder), keys.chat.system)
        if chat.folder.quantised != "none":
            raise ValueError(f"start: the weights of {folder} are {chat.folder.quantised}; name those it was made from")
    dtype = torch.float32 if keys.train.precision == "fp32" else getattr(torch, keys.saved_dtype)
    how = (keys.quantise, keys.lora, keys.lora_part, keys.adapter, seed, dtype)
    start = Start(chat.folder, digest, files, *how)
    if keys.lora.rank:
        model = start.build("meta")
        start.adapt(model)
        if keys.adapter is not None:
            check_adapters(keys.adapter, model, keys.lora, base=digest)
    return start, chat


def prepared_model(keys: ChatTrainingKeys, start: Start, device: str) -> tuple[ChatModel, Any]:
    """The model, and its adapters when there are some; all that is trained wants gradients."""
    model = start.build(device)
    adapted = start.adapt(model) if keys.lora.rank else None
    choose_trained(model, lr_scale_of(keys.rates, keys.train.lr), adapted=adapted is not None)
    return model, adapted


def save_trained(keys: ChatTrainingKeys, start: Start, model: ChatModel, adapted: Any, run: Path) -> None:
    """Write RUN/adapter and, if wanted, RUN/merged, or RUN/model."""
    dtype = getattr(torch, keys.saved_dtype)
    if adapted is None:
        start.save(model, run / "model", dtype)
        return
    start.save_adapter(adapted, run / "adapter", str(keys.start))
    if keys.merged:
        start.save(start.merged(adapted, run / "adapter", dtype), run / "merged", dtype)


def new_chat(shape: ChatModelShape, settings: ChatSettings, files: Mapping[str, bytes]) -> Chat:
    """The chat of a new model of text, with the tokenizer of `files`; nothing stays on disk."""
    ends = {"start": SPECIALS.index("<|endoftext|>"), "end": SPECIALS.index("<|im_end|>")}
    with tempfile.TemporaryDirectory() as place:
        for name, content in files.items():
            (Path(place) / name).write_bytes(content)
        return Chat(read_chat(Path(place), shape.config(settings.max_length, **ends)), settings.system)


def quantised(planned: Footprint, model: ChatModel) -> Footprint:
    """A footprint in full weights -> that of the same model in four bits, with one layer at a time unpacked."""
    weights = [model.get_submodule(name).weight for name in quantised_layers(model)]
    full = sum(weight.numel() * weight.element_size() for weight in weights)
    packed = int(sum(weight.numel() for weight in weights) * _NF4_BITS / 8)
    largest = max(weight.numel() * weight.element_size() for weight in weights)
    parts = dict(planned.parts) | {"weights": planned.parts["weights"] - full + packed}
    return replace(planned, parts=parts, working=planned.working + largest)
