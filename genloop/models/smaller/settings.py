"""What a smaller form leaves out of a model: the keys of a config, and what they mean for one config.json. No torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field

from genloop.bounds import Layers, Width
from genloop.config import Settings
from genloop.models.smaller.families import FAMILIES, Family, Stack, num_layers
from genloop.models.smaller.images import check_area
from genloop.reading import read_json_object
from genloop.registry import did_you_mean

Quantise = Literal["none", "int8", "nf4"]
PACKAGES = {"int8": "torchao", "nf4": "bitsandbytes"}
_FEWEST = 2  # layers that stay: the first and the last one have tasks of their own


class Reduction(Settings):
    """How a model becomes smaller; null leaves a part as it is."""

    text_layers: Annotated[Layers, Field(ge=_FEWEST)] | None = Field(None, description="layers that the LLM keeps")
    vision_layers: Annotated[Layers, Field(ge=_FEWEST)] | None = Field(
        None, description="layers that the vision tower keeps"
    )
    leave_out: Literal["deepest", "spaced"] = Field(
        "deepest",
        description="deepest: the layers in front of the last one (Gromov et al. 2024); spaced: evenly, first and "
        "last stay",
    )
    image_size: Width | None = Field(
        None,
        description="pixels a side of LLaVA's and InstructBLIP's images; Qwen-VL's have at the most its square of them",
    )
    query_tokens: Width | None = Field(None, description="tokens of an image that InstructBLIP's Q-Former keeps")
    quantise: Quantise = Field(
        "none", description="weights of linear layers: int8 by torchao, nf4 by bitsandbytes; the head stays as it is"
    )


class ReductionPlan(NamedTuple):
    """A reduction of one model: numbers of the layers that stay, in order, of each stack."""

    family: Family
    text: tuple[int, ...]
    vision: tuple[int, ...]
    reduction: Reduction

    @property
    def leaves_out(self) -> bool:
        """Whether tensors change before they are quantised."""
        kept = self.reduction.model_dump(exclude={"quantise", "leave_out"}, include=set(Reduction.model_fields))
        return any(value is not None for value in kept.values())


def plan_reduction(folder: Path, reduction: Reduction) -> ReductionPlan:
    """From config.json of a checkpoint; ValueError for another family, for more than there is, and for nothing."""
    config, where = read_json_object(folder / "config.json"), folder / "config.json"
    kind = config.get("model_type")
    if kind not in FAMILIES:
        raise ValueError(f"{where}: model_type {kind!r}{did_you_mean(str(kind), FAMILIES)} ({', '.join(FAMILIES)})")
    if config.get("quantization_config"):
        raise ValueError(f"{where}: quantization_config: the weights are quantised; name the original ones")
    family = FAMILIES[str(kind)]
    text = _kept(config, family.text, reduction.text_layers, reduction.leave_out, "text_layers")
    vision = _kept(config, family.vision, reduction.vision_layers, reduction.leave_out, "vision_layers")
    if reduction.vision_layers and config.get("vision_feature_layer", -1) != -1:
        layer = config["vision_feature_layer"]
        raise ValueError(f"vision_layers: {where}: vision_feature_layer is {layer!r}, only -1 is known")
    _check_tokens(config, family, reduction, str(kind))
    if reduction.image_size is not None:
        if family.fixed_tile:
            _check_tile(config, reduction.image_size)
        else:
            check_area(folder, reduction.image_size)
    plan = ReductionPlan(family, text, vision, reduction)
    if reduction.quantise == "none" and not plan.leaves_out:
        keys = [key for key in Reduction.model_fields if key != "leave_out"]
        raise ValueError(f"quantise: nothing is made smaller; set one of {', '.join(keys)}")
    return plan


def _kept(config: Mapping[str, Any], stack: Stack, kept: int | None, leave_out: str, key: str) -> tuple[int, ...]:
    there = num_layers(config, stack)
    if kept is None:
        return tuple(range(there))
    if kept >= there:
        raise ValueError(f"{key}: the model has {there}, expected fewer, found {kept}")
    if leave_out == "deepest":
        return (*range(kept - 1), there - 1)
    return tuple(round(number * (there - 1) / (kept - 1)) for number in range(kept))


def _check_tokens(config: Mapping[str, Any], family: Family, reduction: Reduction, kind: str) -> None:
    if reduction.query_tokens is None:
        return
    if not family.query_tokens:
        raise ValueError(f"query_tokens: a {kind} has no Q-Former; set it to null")
    there = config.get("num_query_tokens", 32)
    if reduction.query_tokens >= there:
        raise ValueError(f"query_tokens: the model has {there}, expected fewer, found {reduction.query_tokens}")


def _check_tile(config: Mapping[str, Any], side: int) -> None:
    vision = config.get("vision_config") or {}
    there, patch = vision.get("image_size"), vision.get("patch_size")
    if not isinstance(there, int) or not isinstance(patch, int):
        raise ValueError("image_size: config.json does not say vision_config.image_size and patch_size")
    if not patch <= side < there:
        raise ValueError(f"image_size: images have {there} pixels a side in patches of {patch}, found {side}")
