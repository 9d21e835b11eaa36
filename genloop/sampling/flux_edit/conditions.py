"""Conditions of requests, encoded once and kept: RUN/conditions/KEY.safetensors. Encoders leave memory afterwards."""

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genloop.checkpoint import read_header
from genloop.models.common.memory import release_memory
from genloop.models.flux_edit import encode, load
from genloop.models.flux_edit.encode import Conditions
from genloop.registry import require
from genloop.sampling.flux_edit.prepare import PreparedEdit

log = logging.getLogger(__name__)


class Encoders:
    """Qwen2-VL with its connector, T5 and CLIP: each reads all requests before the next one does.

    `one_at_a_time`: each leaves memory before the next one comes, and the last one afterwards.
    """

    def __init__(
        self, folder: Path, *, dtype: torch.dtype, device: str, one_at_a_time: bool, connector: Path | None = None
    ) -> None:
        self.folder, self.dtype, self.device, self.one_at_a_time = folder, dtype, device, one_at_a_time
        self.connector = connector
        self._loaded: dict[str, Any] = {}

    def encode(self, wanted: Sequence[PreparedEdit]) -> list[Conditions]:
        """Of each request."""
        tokens = [self._tokens(prepared) for prepared in wanted]
        self._leave("qwen")
        prompts = sorted({prepared.request.prompt for prepared in wanted} - {""})
        texts = {prompt: encode.text_tokens(*self._text_encoder("t5"), [prompt])[0] for prompt in prompts}
        self._leave("t5")
        pooled = encode.pooled_text(*self._text_encoder("clip"))
        self._leave("clip")
        return [
            Conditions(picture, reference, texts.get(prepared.request.prompt), pooled, grid)
            for prepared, (picture, reference, grid) in zip(wanted, tokens, strict=True)
        ]

    def _tokens(self, prepared: PreparedEdit) -> tuple[Tensor, Tensor | None, tuple[int, int]]:
        """(N, D) of the picture and of the reference, and the grid of those that the transformer reads."""
        request, focus = prepared.request, prepared.focus
        alone = encode.TOKENS_WITH_PROMPT if request.prompt else encode.TOKENS_ALONE
        count, connector = request.image_tokens or alone, self._connector
        picture = encode.picture_tokens(*self._qwen(), prepared.original, num_tokens=count)
        if prepared.reference is None:
            return encode.connect(connector, picture, focus), None, (picture.shape[0], picture.shape[1])
        reference = encode.picture_tokens(*self._qwen(), prepared.reference, num_tokens=count)
        grid = reference.shape[0], reference.shape[1]
        return encode.connect(connector, picture, None), encode.connect(connector, reference, focus), grid

    def _qwen(self) -> tuple[Any, Any, Any]:
        if "qwen" not in self._loaded:
            self._loaded["qwen"] = load.load_qwen(self.folder, dtype=self.dtype, device=self.device)
        found: tuple[Any, Any, Any] = self._loaded["qwen"]
        return found

    @cached_property
    def _connector(self) -> Any:
        return load.load_connector(self.folder, self.connector).to(self.device)

    def _text_encoder(self, name: str) -> tuple[Any, Any]:
        if name not in self._loaded:
            self._loaded[name] = load.load_text_encoder(self.folder, name, dtype=self.dtype, device=self.device)
        found: tuple[Any, Any] = self._loaded[name]
        return found

    def _leave(self, name: str) -> None:
        if self.one_at_a_time and self._loaded.pop(name, None) is not None:
            release_memory()


class ConditionCache:
    """Conditions by what they follow from; the checkpoint is that of the run."""

    def __init__(self, folder: Path, write: Callable[[Path, bytes], None]) -> None:
        self.folder, self.write = folder, write

    def all_of(self, wanted: Iterable[PreparedEdit], encoders: Callable[[], Encoders]) -> list[Conditions]:
        """Of each request, from a file or encoded now; `encoders` is called when something is not there yet."""
        prepared = list(wanted)
        paths = [self.folder / f"{condition_key(one)}.safetensors" for one in prepared]
        kept = {path: _read(path) for path in paths}
        missing = {path: one for path, one in zip(paths, prepared) if kept[path] is None}
        if missing:
            for path, made in zip(missing, encoders().encode(list(missing.values())), strict=True):
                self.write(path, _bytes(made))
                kept[path] = made
        return [found for path in paths if (found := kept[path]) is not None]


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


def _read(path: Path) -> Conditions | None:
    """None when there is no file, or one that is torn and has to be made anew."""
    try:
        read_header(path)
    except FileNotFoundError:
        return None
    except ValueError as error:
        log.warning("encoded anew: %s", error)
        return None
    tensors = require("safetensors.torch").load_file(path)
    rows, columns = tensors["grid"].tolist()
    return Conditions(
        tensors["picture"], tensors.get("reference"), tensors.get("text"), tensors["pooled"], (rows, columns)
    )
