"""A transformer of fewer bytes or steps: weights as int8 or float8 (torchao), LoRA files for few steps."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from genloop.models.common.pretrained import errors_in_one_line
from genloop.models.diffusion.lora import parse_lora
from genloop.registry import require

_UNUSED = ("scheduler", "vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")
KINDS = {"int8": "Int8WeightOnlyConfig", "float8": "Float8WeightOnlyConfig"}
EXACT = ("norm", "norm1", "norm2", "norm1_context", "norm2_context", "norm_out", "proj_out", "x_embedder") + (
    "context_embedder",
)  # parts whose layers keep their precision, as the released code leaves them out


def quantise(model: Any, kind: str) -> Any:
    """Weights of the model's other linear layers in 8 bits, products in the model's own type; in place."""
    torchao = require("torchao.quantization", "editing")

    def is_quantised(module: nn.Module, name: str) -> bool:
        return isinstance(module, nn.Linear) and not set(EXACT) & set(name.split("."))

    torchao.quantize_(model, getattr(torchao, KINDS[kind])(), filter_fn=is_quantised)
    return model


def add_loras(model: Any, loras: Sequence[str]) -> Any:
    """FILE:weight of each, added to the transformer's weights: for few steps, or a style. In place."""
    if not loras:
        return model
    pipe = require("diffusers", "diffusion").FluxPipeline(transformer=model, **dict.fromkeys(_UNUSED))
    files = [parse_lora(text) for text in loras]
    names = [f"lora_{number}" for number in range(len(files))]
    for name, lora in zip(names, files):
        with errors_in_one_line(lora.file):
            pipe.load_lora_weights(
                lora.file.parent, weight_name=lora.file.name, adapter_name=name, local_files_only=True
            )
    pipe.set_adapters(names, [lora.weight for lora in files])
    pipe.fuse_lora(adapter_names=names)
    pipe.unload_lora_weights()
    return model
