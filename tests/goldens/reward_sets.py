"""Recordings of judges: a set is a folder `showo/*/reward` with a tiny LLaVA-OneVision and what it was asked.

H, W = pixels of an image, T = its positions in the language model, V = vocabulary.
"""

import json
import tempfile
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genloop.models.llava.config import LlavaConfig, check_llava_folder
from genloop.models.llava.load import load_llava
from genloop.models.llava.model import Llava
from tests.goldens.roots import golden_paths
from tests.goldens.showo_sets import read_arrays, read_json


@dataclass(frozen=True)
class RewardSet:
    """One recorded judge."""

    folder: Path

    @cached_property
    def keys(self) -> dict[str, Any]:
        return read_json(self.folder / "config.json")

    @cached_property
    def arrays(self) -> dict[str, Tensor]:
        return read_arrays(self.folder / "io.npz")

    @cached_property
    def _loaded(self) -> tuple[Llava, LlavaConfig]:
        """The weights beside a config.json as the public ones are: the recorded one lists sizes in groups."""
        torch.set_num_threads(1)  # as recorded
        vision = {**self.keys["vision"], "num_hidden_layers": self.keys["vision_layers_kept"]}
        names = ("model_type", "mm_projector_type", "mm_patch_merge_type", "image_aspect_ratio")
        config = {**self.keys["text"], **{name: self.keys[name] for name in names}, "vision_config": vision}
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            (folder / "config.json").write_text(json.dumps(config))
            (folder / "model.safetensors").symlink_to((self.folder / "model.safetensors").resolve())
            return load_llava(folder), check_llava_folder(folder)

    @property
    def model(self) -> Llava:
        return self._loaded[0]

    @property
    def config(self) -> LlavaConfig:
        return self._loaded[1]

    @property
    def num_items(self) -> int:
        return sum(name.startswith("input_ids") for name in self.arrays)

    def image(self, item: int) -> np.ndarray:
        """(H, W, 3) uint8"""
        return self.arrays[f"image{item}"].numpy()

    def texts(self, item: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The recorded ids in front of the image and behind it."""
        ids = self.arrays[f"input_ids{item}"].tolist()
        place = ids.index(self.keys["image_placeholder_id_in_input_ids"])
        return tuple(ids[:place]), tuple(ids[place + 1 :])


@lru_cache
def set_of(folder: Path) -> RewardSet:
    return RewardSet(folder)


def reward_sets() -> list[RewardSet]:
    """Every recorded judge."""
    return [set_of(path.parent) for path in golden_paths("showo/*/reward/io.npz")]
