"""CLIP (Radford et al. 2021) through open_clip: images and texts as unit vectors of one space.

A folder in open_clip's layout is read: open_clip_config.json (`model_cfg`, `preprocess_cfg`) and the weights, or the
weights alone when the architecture is named. OpenAI's weights were trained with QuickGELU; with plain GELU, which newer
open_clip builds for the same architecture, they give other vectors without any complaint. Folders of transformers are
read by `genloop.models.clip.towers`.

B = images, T = texts, D = embedding size, H, W = pixels.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from genloop.checkpoint import compare_manifest, load_tensors, read_shapes
from genloop.models.clip.config import (
    CONFIG_FILE,
    OPENAI,
    Precision,
    forward_flops,
    read_model_config,
    read_preprocess_config,
)
from genloop.models.common.footprint import autocast_on_meta, kind_of
from genloop.models.common.memory import Budget
from genloop.models.common.precision import strict_float32
from genloop.registry import did_you_mean, require

Pictures = np.ndarray | Sequence[np.ndarray]  # (B, H, W, 3), or B of (H, W, 3) that differ in size
_ON_A_CPU = 8  # rows in every forward pass: more are no faster there, and fewer take other kernels


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """From pixels to what the image tower sees; the defaults are OpenAI's."""

    size: int
    mean: Sequence[float] = (0.48145466, 0.4578275, 0.40821073)
    std: Sequence[float] = (0.26862954, 0.26130258, 0.27577711)
    interpolation: str = "bicubic"
    resize_mode: str = "shortest"  # the shortest side becomes `size`, then the middle is cut out; or squash

    def __call__(self, images: Pictures) -> Tensor:
        """B times (H, W, 3) uint8, sizes may differ -> (B, 3, size, size) float32, through Pillow as open_clip does"""
        pixels = torch.from_numpy(np.stack([self._cut(image) for image in images])).permute(0, 3, 1, 2) / 255
        mean, std = (pixels.new_tensor(values).view(3, 1, 1) for values in (self.mean, self.std))
        return (pixels - mean) / std

    def _cut(self, image: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 -> (size, size, 3) uint8"""
        pillow, size = require("PIL.Image"), self.size
        picture = pillow.fromarray(image)
        short = min(picture.size) if self.resize_mode == "shortest" else None
        wanted = tuple(int(size * side / short) if short else size for side in picture.size)
        if wanted != picture.size:
            picture = picture.resize(wanted, getattr(pillow.Resampling, self.interpolation.upper()))
        left, top = (round((side - size) / 2) for side in wanted)
        return np.asarray(picture.crop((left, top, left + size, top + size)))


class ClipEmbedder:
    """A CLIP network with its tokenizer and its pixels."""

    def __init__(
        self,
        network: nn.Module,
        tokenizer: Callable[[Sequence[str]], Tensor],
        preprocessing: Preprocessing,
        *,
        device: str = "cpu",
        rows_per_forward: int = 64,
        precision: Precision = "float32",
        flops: float = 0.0,
    ) -> None:
        if precision != "float32" and kind_of(torch.device(device)) != "cuda":
            raise ValueError(f"precision {precision} needs a GPU, the device is {device}; use precision float32")
        self.network, self.tokenizer = network.to(device).eval().requires_grad_(False), tokenizer
        self.preprocessing, self.device, self.precision = preprocessing, device, precision
        rows = rows_per_forward if kind_of(torch.device(device)) == "cuda" else _ON_A_CPU
        self.budget = Budget(rows, "rows in a forward pass of CLIP")
        self.flops = flops  # of embedding one image and one text

    def autocast(self) -> AbstractContextManager[None]:
        """Where products of matrices are taken in the embedder's precision; float32 is strict, without TF32."""
        if self.precision == "float32":
            return strict_float32(self.device)
        if self.device == "meta":
            return autocast_on_meta(torch.float16, caches=False)
        return torch.autocast(self.device.partition(":")[0], torch.float16)

    def embed_images(self, images: Pictures) -> Tensor:
        """B times (H, W, 3) uint8 -> (B, D) float32 of length 1"""
        return self._embed(self.network.encode_image, self.preprocessing(images))

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """-> (T, D) float32 of length 1"""
        return self._embed(self.network.encode_text, self.tokenizer(list(texts)))

    @torch.inference_mode()
    def _embed(self, tower: Any, rows: Tensor) -> Tensor:
        """Always the same number of rows at a time, so that a row's bits do not depend on how many others there are:
        the kernel, and how threads share the work, depend on the number.
        """

        def compute(part: Any) -> Tensor:
            missing = self.budget.limit - len(part)
            padded = torch.cat([part, part[-1:].expand(missing, *part.shape[1:])])
            with self.autocast():
                return tower(padded.to(self.device))[: len(part)].float()

        return normalize(torch.stack(self.budget.run(cast("Any", rows), 1, compute)), dim=-1)


def load_clip(
    folder: Path, *, architecture: str | None = None, published_as: str | None = None, **settings: Any
) -> ClipEmbedder:
    """The model in `folder`, weights in float32. `architecture`: open_clip's name of it where the folder has no config;
    `published_as`: open_clip's tag of the weights, which decides the activation and the pixels; `settings`: device,
    rows_per_forward and precision of the ClipEmbedder.
    """
    open_clip = require("open_clip", "clip")
    name = f"local-dir:{folder}" if architecture is None else _known_architecture(open_clip, architecture)
    tag = _tag(open_clip, architecture, published_as)
    quick = published_as == OPENAI or bool(tag.get("quick_gelu"))
    config = read_model_config(folder) if architecture is None else open_clip.get_model_config(architecture)
    try:
        network = _network(open_clip, config, quick_gelu=quick)
    except Exception as error:  # the library asserts, unpacks and multiplies whatever the config says
        what = f"{type(error).__name__}: {error}"
        raise ValueError(f"{folder}: open_clip cannot build what {CONFIG_FILE} says ({what}); mend it") from error
    expected = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    compare_manifest(expected, read_shapes(folder), folder)
    network.load_state_dict(load_tensors(folder))
    if quick and not _is_quick(open_clip, network):
        raise ValueError(f"{folder}: weights published as {published_as!r} need QuickGELU, which {name} does not have")
    pixels = {} if architecture is not None else read_preprocess_config(folder)
    return ClipEmbedder(
        network,
        open_clip.get_tokenizer(name),
        _preprocessing(folder, {"size": network.visual.image_size, **pixels, **tag}),
        flops=forward_flops(config),
        **settings,
    )


def _is_quick(open_clip: Any, network: nn.Module) -> bool:
    """Whether QuickGELU is the only activation of both towers."""
    found = {type(module) for module in network.modules()}
    return open_clip.transformer.QuickGELU in found and nn.GELU not in found


def _network(open_clip: Any, config: Mapping[str, Any], *, quick_gelu: bool) -> Any:
    """With random weights; its towers do not fetch any either."""
    config = deepcopy(dict(config)) | ({"quick_gelu": True} if quick_gelu else {})
    if "timm_model_name" in config["vision_cfg"]:
        config["vision_cfg"]["timm_model_pretrained"] = False
    has_own_text = config.pop("custom_text", False) or "hf_model_name" in config["text_cfg"]
    return (open_clip.CustomTextCLIP if has_own_text else open_clip.CLIP)(**config)


def _known_architecture(open_clip: Any, name: str) -> str:
    known = open_clip.list_models()
    if name not in known:
        raise ValueError(f"unknown architecture {name!r} of open_clip{did_you_mean(name, known)}")
    return name


def _tag(open_clip: Any, architecture: str | None, published_as: str | None) -> dict[str, Any]:
    """What open_clip knows about published weights."""
    if published_as is None:
        return {}
    known = sorted({tag for name, tag in open_clip.list_pretrained() if architecture in (None, name)})
    if published_as not in known:
        raise ValueError(
            f"open_clip knows no {published_as!r} weights of {architecture or 'any architecture'}"
            f"{did_you_mean(published_as, known)} ({', '.join(known)})"
        )
    return open_clip.get_pretrained_cfg(architecture, published_as) if architecture else {}


def _preprocessing(folder: Path, config: Mapping[str, Any]) -> Preprocessing:
    """From open_clip's `preprocess_cfg`, of which every key may be absent."""
    size = config["size"]
    sizes = set(size) if isinstance(size, list | tuple) else {size}
    given = {key: config[key] for key in ("mean", "std", "interpolation", "resize_mode") if config.get(key)}
    found = Preprocessing(sizes.pop(), **given)
    if sizes or found.resize_mode not in {"shortest", "squash"} or found.interpolation not in {"bicubic", "bilinear"}:
        raise ValueError(
            f"{folder}: images of size {size}, resize_mode {found.resize_mode!r}, interpolation "
            f"{found.interpolation!r} are not supported; use square images, shortest or squash, bicubic or bilinear"
        )
    return found
