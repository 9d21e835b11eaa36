"""Conditions of requests, encoded once and kept: RUN/conditions/KEY.safetensors. Encoders leave memory afterwards."""

import hashlib
import json
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genloop.models.flux_edit import encode, load
from genloop.models.flux_edit.encode import Conditions
from genloop.registry import require
from genloop.sampling.flux_edit.prepare import PreparedEdit


class Encoders:
    """Qwen2-VL with its connector, T5 and CLIP, each loaded when it is first asked."""

    def __init__(self, folder: Path, *, dtype: torch.dtype, device: str) -> None:
        self.folder, self.dtype, self.device = folder, dtype, device

    def conditions(self, prepared: PreparedEdit) -> Conditions:
        """Encode a request."""
        request, focus = prepared.request, prepared.focus
        alone = encode.TOKENS_WITH_PROMPT if request.prompt else encode.TOKENS_ALONE
        count = request.image_tokens or alone
        looks_at_picture = prepared.reference is None  # the focus is on the reference where there is one
        picture = self._picture(prepared.original, count)
        reference = None if prepared.reference is None else self._picture(prepared.reference, count)
        return Conditions(
            encode.connect(self._connector, picture, focus if looks_at_picture else None),
            None if reference is None else encode.connect(self._connector, reference, focus),
            encode.text_tokens(*self._t5, [request.prompt])[0] if request.prompt else None,
            encode.pooled_text(*self._clip),
            (picture.shape[0], picture.shape[1]),
        )

    def _picture(self, pixels: np.ndarray, count: int) -> torch.Tensor:
        return encode.picture_tokens(*self._qwen, pixels, num_tokens=count)

    @cached_property
    def _qwen(self) -> tuple[Any, Any, Any]:
        return load.load_qwen(self.folder, dtype=self.dtype, device=self.device)

    @cached_property
    def _connector(self) -> Any:
        return load.load_connector(self.folder).to(self.device)

    @cached_property
    def _t5(self) -> tuple[Any, Any]:
        return load.load_text_encoder(self.folder, "t5", dtype=self.dtype, device=self.device)

    @cached_property
    def _clip(self) -> tuple[Any, Any]:
        return load.load_text_encoder(self.folder, "clip", dtype=self.dtype, device=self.device)


class ConditionCache:
    """Conditions by what they follow from; the checkpoint is that of the run."""

    def __init__(self, folder: Path, write: Callable[[Path, bytes], None]) -> None:
        self.folder, self.write = folder, write

    def all_of(self, wanted: Iterable[PreparedEdit], encoders: Callable[[], Encoders]) -> list[Conditions]:
        """Of each request, from a file or encoded now; `encoders` is called when something is not there yet."""
        found, loaded = [], None
        for prepared in wanted:
            path = self.folder / f"{condition_key(prepared)}.safetensors"
            if not path.is_file():
                loaded = loaded or encoders()
                self.write(path, _bytes(loaded.conditions(prepared)))
            found.append(_read(path))
        return found


def condition_key(prepared: PreparedEdit) -> str:
    """A hash of all that the conditions of a request follow from, beside the checkpoint."""
    request, focus = prepared.request, prepared.focus
    about = {
        "picture": _sha(prepared.original),
        "reference": None if prepared.reference is None else _sha(prepared.reference),
        "prompt": request.prompt,
        "image_tokens": request.image_tokens,
        "focus": None if focus is None else [focus.center_x, focus.center_y, focus.radius, focus.published],
    }
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:32]


def _sha(pixels: np.ndarray) -> str:
    return hashlib.sha256(f"{pixels.shape}".encode() + np.ascontiguousarray(pixels).tobytes()).hexdigest()


def _bytes(conditions: Conditions) -> bytes:
    tensors = {"picture": conditions.picture, "pooled": conditions.pooled, "grid": torch.tensor(conditions.grid)}
    tensors |= {} if conditions.reference is None else {"reference": conditions.reference}
    tensors |= {} if conditions.text is None else {"text": conditions.text}
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    return bytes(require("safetensors.torch").save(contiguous))


def _read(path: Path) -> Conditions:
    tensors = require("safetensors.torch").load_file(path)
    rows, columns = tensors["grid"].tolist()
    return Conditions(
        tensors["picture"], tensors.get("reference"), tensors.get("text"), tensors["pooled"], (rows, columns)
    )
