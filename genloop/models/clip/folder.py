"""What a CLIP folder in the layout of transformers has to hold, read without torch: tensors, tokenizer, pixels."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from genloop.checkpoint import Shape, read_json

BUFFER = ".position_ids"  # in older files; counted, not learned
_RESAMPLING = {2: "bilinear", 3: "bicubic"}  # Pillow's numbers
_INNER = {"vision": 3072, "text": 2048}  # what transformers takes where config.json says nothing
_SIZES = frozenset({"hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "patch_size"}) | (
    frozenset({"image_size", "vocab_size", "max_position_embeddings"})
)
_ACTIVATIONS = ("quick_gelu", "gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "relu")


def check_tower(settings: Mapping[str, Any], where: str) -> None:
    """ValueError unless the sizes are whole numbers above 0 that go together; `where` opens it."""
    for key, value in settings.items():
        if key == "hidden_act" and value not in _ACTIVATIONS:
            raise ValueError(f"{where}.{key} is {value!r}, expected one of {', '.join(_ACTIVATIONS)}")
        if key in _SIZES and (type(value) is not int or value < 1):
            raise ValueError(f"{where}.{key} is {value!r}, expected a whole number above 0")
    wide, heads = settings["hidden_size"], settings.get("num_attention_heads", 1)
    if wide % heads:
        raise ValueError(f"{where}.hidden_size is {wide}, no multiple of its {heads} attention heads")


def clip_manifest(vision: Mapping[str, Any], text: Mapping[str, Any], embed_dim: int) -> dict[str, Shape]:
    """{key: shape} of every tensor, under the names of transformers."""
    image, words = vision["hidden_size"], text["hidden_size"]
    patch, places = vision["patch_size"], (vision["image_size"] // vision["patch_size"]) ** 2 + 1
    found: dict[str, Shape] = {
        "logit_scale": (),
        "visual_projection.weight": (embed_dim, image),
        "text_projection.weight": (embed_dim, words),
        "vision_model.embeddings.class_embedding": (image,),
        "vision_model.embeddings.patch_embedding.weight": (image, 3, patch, patch),
        "vision_model.embeddings.position_embedding.weight": (places, image),
        "text_model.embeddings.token_embedding.weight": (text["vocab_size"], words),
        "text_model.embeddings.position_embedding.weight": (text["max_position_embeddings"], words),
    }
    norms = {"vision_model.pre_layrnorm": image, "vision_model.post_layernorm": image}
    for name, wide in {**norms, "text_model.final_layer_norm": words}.items():
        found |= {f"{name}.weight": (wide,), f"{name}.bias": (wide,)}
    for side, settings in (("vision", vision), ("text", text)):
        found |= dict(_layers(f"{side}_model.encoder.layers", settings, _INNER[side]))
    return found


def _layers(name: str, settings: Mapping[str, Any], inner: int) -> Iterator[tuple[str, Shape]]:
    wide, inner = settings["hidden_size"], settings.get("intermediate_size", inner)
    shapes = {f"self_attn.{part}_proj": (wide, wide) for part in ("q", "k", "v", "out")}
    shapes |= {"mlp.fc1": (inner, wide), "mlp.fc2": (wide, inner)}
    for layer in range(settings["num_hidden_layers"]):
        for part, shape in shapes.items():
            yield f"{name}.{layer}.{part}.weight", shape
            yield f"{name}.{layer}.{part}.bias", shape[:1]
        for number in (1, 2):
            yield f"{name}.{layer}.layer_norm{number}.weight", (wide,)
            yield f"{name}.{layer}.layer_norm{number}.bias", (wide,)


def check_tokenizer_files(folder: Path) -> None:
    """FileNotFoundError or ValueError unless the files are there and are JSON; transformers reads them."""
    if (folder / "tokenizer.json").is_file():
        if "model" not in read_json(folder / "tokenizer.json"):
            raise ValueError(f"{folder / 'tokenizer.json'}: not a file of the tokenizers library; download it again")
    elif (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        read_json(folder / "vocab.json")
    else:
        raise FileNotFoundError(
            f"{folder} holds no tokenizer.json, and no vocab.json with merges.txt; put the tokenizer's files there"
        )


def read_pixels(folder: Path, size: int) -> dict[str, Any]:
    """{interpolation, and mean and std where given}, from preprocessor_config.json; without it, or a key: OpenAI's."""
    path = folder / "preprocessor_config.json"
    config: Mapping[str, Any] = read_json(path) if path.is_file() else {}
    steps = [config.get(f"do_{step}", True) for step in ("resize", "center_crop", "rescale", "normalize")]
    sides = {_side(config.get(key, size)) for key in ("size", "crop_size")}
    resampling = _RESAMPLING.get(config.get("resample", 3))
    if not all(steps) or sides != {str(size)} or resampling is None:
        raise ValueError(
            f"{path}: only the shortest side resized to {size} pixels (bicubic or bilinear), the centre cut out and "
            "normalised are supported; use the file that was published with the weights"
        )
    named = {ours: theirs for ours, theirs in (("mean", "image_mean"), ("std", "image_std")) if theirs in config}
    for ours, theirs in named.items():
        check_channels(config[theirs], ours, f"{path}: {theirs}")
    return {"interpolation": resampling, **{ours: config[theirs] for ours, theirs in named.items()}}


def check_channels(values: Any, what: str, where: str) -> None:
    """ValueError unless `values` are three numbers; a `std` has to be above 0."""
    is_three = isinstance(values, list | tuple) and len(values) == 3 and all(type(v) in (int, float) for v in values)
    if not is_three or not all(math.isfinite(v) and (what != "std" or v > 0) for v in values):
        raise ValueError(f"{where} is {values!r}, expected three numbers; use the file published with the weights")


def _side(value: Any) -> str:
    """224, {"shortest_edge": 224} or {"height": 224, "width": 224} -> "224"."""
    found = {str(side) for side in value.values()} if isinstance(value, Mapping) else {str(value)}
    return found.pop() if len(found) == 1 else str(value)
