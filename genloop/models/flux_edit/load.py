"""Components of Qwen2vl-Flux, each by itself: stock classes from their folders, the connector and T5's embedder."""

import io
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from genloop.checkpoint import load_archive, whole_folder
from genloop.models.common.pretrained import errors_in_one_line, load_pretrained
from genloop.models.flux_edit.config import CONNECTOR, T5_EMBEDDER, WEIGHTS, is_gguf
from genloop.models.flux_edit.controlnet import union_controlnet
from genloop.models.flux_edit.embedder import Connector, DualContextEmbedder
from genloop.models.flux_edit.pipelines import Drawer
from genloop.models.flux_edit.smaller import add_loras, quantise
from genloop.models.flux_edit.vae import with_own_noise
from genloop.reading import read_json_object
from genloop.registry import require
from genloop.rundir import write_atomic


def load_connector(folder: Path, file: Path | None = None) -> Connector:
    """Of qwen2-vl/connector.pt, or of another file; ValueError for other tensors."""
    weight, bias = _linear(file or folder / CONNECTOR, "linear.")
    connector = Connector(weight.shape[1], weight.shape[0])
    connector.linear.load_state_dict({"weight": weight, "bias": bias})
    return connector.eval().requires_grad_(False)


def new_connector(folder: Path, seed: int) -> Connector:
    """Of the sizes of the folder's models, keyed by a seed."""
    vision = read_json_object(folder / "qwen2-vl" / "config.json")
    width = vision.get("hidden_size") or vision.get("text_config", {}).get("hidden_size")
    text = read_json_object(folder / WEIGHTS["transformer"] / "config.json")["joint_attention_dim"]
    connector, generator = Connector(width, text), torch.Generator().manual_seed(seed)
    nn.init.normal_(connector.linear.weight, std=width**-0.5, generator=generator)
    nn.init.zeros_(connector.linear.bias)
    return connector


def save_connector(connector: Connector, path: Path) -> None:
    """In the published layout."""
    state = {f"linear.{name}": tensor.detach().cpu() for name, tensor in connector.linear.state_dict().items()}
    stream = io.BytesIO()
    torch.save(state, stream)
    write_atomic(path, stream.getvalue())


def save_transformer(model: Any, folder: Path) -> None:
    """In diffusers' layout, with the embedder of image tokens as its context_embedder; appears at once."""
    dual = model.context_embedder
    model.context_embedder = dual.image
    try:
        with whole_folder(folder) as temporary:
            model.save_pretrained(temporary, safe_serialization=True)
    finally:
        model.context_embedder = dual


def load_t5_embedder(folder: Path) -> nn.Linear:
    """Of qwen2-vl/t5_embedder.pt; ValueError for other tensors."""
    weight, bias = _linear(folder / T5_EMBEDDER, "")
    linear = nn.Linear(weight.shape[1], weight.shape[0])
    linear.load_state_dict({"weight": weight, "bias": bias})
    return linear.eval().requires_grad_(False)


def load_qwen(folder: Path, *, dtype: torch.dtype, device: str) -> tuple[Any, Any, Any]:
    """-> Qwen2VLModel, its image processor and tokenizer; old key names are mapped by transformers."""
    transformers, place = require("transformers"), folder / "qwen2-vl"
    model = load_pretrained(transformers.Qwen2VLModel, place, dtype=dtype, device=device)
    processor = transformers.AutoImageProcessor.from_pretrained(place, local_files_only=True)
    return model, processor, transformers.AutoTokenizer.from_pretrained(place, local_files_only=True)


def load_text_encoder(folder: Path, name: str, *, dtype: torch.dtype, device: str) -> tuple[Any, Any]:
    """name: t5 or clip -> the encoder and its tokenizer."""
    transformers, place = require("transformers"), folder / WEIGHTS[name]
    kind = transformers.T5EncoderModel if name == "t5" else transformers.CLIPTextModel
    model = load_pretrained(kind, place, dtype=dtype, device=device)
    tokenizer = place.with_name(place.name.replace("text_encoder", "tokenizer"))
    return model, transformers.AutoTokenizer.from_pretrained(tokenizer, local_files_only=True)


def load_transformer(
    folder: Path, *, dtype: torch.dtype, device: str, text: nn.Linear | None, other: Path | None = None
) -> Any:
    """The stock transformer; its `context_embedder` takes image tokens and, with T5's embedder, text tokens.

    `other`: in place of the checkpoint's own a folder, or one file of weights (safetensors or GGUF) for its config.
    """
    own = folder / WEIGHTS["transformer"]
    if other is not None and other.is_file():
        return with_dual_embedder(_from_file(other, own, dtype, device), text, dtype)
    return with_dual_embedder(_from_diffusers("FluxTransformer2DModel", other or own, dtype, device), text, dtype)


def load_controlnet(folder: Path, *, dtype: torch.dtype, device: str, text: nn.Linear | None) -> Any:
    """The union net, for several controls and rows; it reads tokens with its own embedder and T5's."""
    net = union_controlnet(_from_diffusers("FluxControlNetModel", folder / WEIGHTS["controlnet"], dtype, device))
    return with_dual_embedder(net, text, dtype)


def load_vae(folder: Path, *, dtype: torch.dtype, device: str) -> tuple[Any, Any]:
    """-> the VAE and the scheduler."""
    diffusers = require("diffusers", "diffusion")
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler.from_pretrained(
        folder / "flux" / "scheduler", local_files_only=True
    )
    return _from_diffusers("AutoencoderKL", folder / WEIGHTS["vae"], dtype, device), scheduler


def load_drawer(
    folder: Path,
    components: Container[str],
    *,
    dtype: str,
    device: str,
    transformer: Path | None = None,
    loras: Sequence[str] = (),
    quantised: str | None = None,
    offload: bool = False,
) -> Drawer:
    """What draws, with the parts that are needed. Made smaller in the host memory, LoRA files first.

    Offloaded, few of its layers are on the device at a time.
    """
    kind = getattr(torch, dtype)
    text = load_t5_embedder(folder) if "t5_embedder" in components else None
    vae, scheduler = load_vae(folder, dtype=kind, device=device)
    model = load_transformer(folder, dtype=kind, device="cpu", text=text, other=transformer)
    add_loras(model, loras)
    if quantised:
        quantise(model, quantised)
    if offload:
        place, home = torch.device(device), torch.device("cpu")
        model.enable_group_offload(onload_device=place, offload_device=home, offload_type="leaf_level")
    else:
        model.to(device)
    controlnet = None
    if "controlnet" in components:
        controlnet = load_controlnet(folder, dtype=kind, device=device, text=text)
    return Drawer(scheduler, with_own_noise(vae), model, controlnet, device=device)


def with_dual_embedder(model: Any, text: nn.Linear | None, dtype: torch.dtype) -> Any:
    """The model with a `DualContextEmbedder` in place of its context_embedder."""
    own, other = model.context_embedder, None
    if text is not None:
        other = nn.Linear(text.in_features, text.out_features).to(own.weight.device, dtype)
        other.load_state_dict(text.state_dict())
    model.context_embedder = DualContextEmbedder(own, other).requires_grad_(False)
    return model


def _from_diffusers(name: str, folder: Path, dtype: torch.dtype, device: str) -> Any:
    kind = getattr(require("diffusers", "diffusion"), name)
    model = kind.from_pretrained(folder, torch_dtype=dtype, local_files_only=True, use_safetensors=True)
    return model.to(device).eval().requires_grad_(False)


def _from_file(file: Path, config: Path, dtype: torch.dtype, device: str) -> Any:
    """A transformer in one file, by diffusers' names or the original ones; GGUF weights stay as small as they are."""
    diffusers = require("diffusers", "diffusion")
    more = {"quantization_config": diffusers.GGUFQuantizationConfig(compute_dtype=dtype)} if is_gguf(file) else {}
    with errors_in_one_line(file):
        model = diffusers.FluxTransformer2DModel.from_single_file(
            str(file), config=str(config), torch_dtype=dtype, local_files_only=True, **more
        )
    return model.to(device).eval().requires_grad_(False)


def _linear(path: Path, prefix: str) -> tuple[Tensor, Tensor]:
    """Weight and bias of a .pt file, of which nothing is unpickled."""
    named = {key.removeprefix("module."): value for key, value in load_archive(path).items()}
    if set(named) != {f"{prefix}weight", f"{prefix}bias"}:
        raise ValueError(f"{path}: expected {prefix}weight and {prefix}bias, found {', '.join(sorted(named))[:200]}")
    return named[f"{prefix}weight"].float(), named[f"{prefix}bias"].float()
