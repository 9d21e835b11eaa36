"""Show-o recordings: a set is a folder with tiny_config.json, weights and what the published code made of them.

P = prompts, R = rows, T = steps, n = image tokens, L = sequence length, K = codebook size.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genloop.models.showo.config import ShowOConfig
from genloop.models.showo.load import load_showo
from genloop.models.showo.model import ShowO
from genloop.models.showo.prompting import Layout
from genloop.records import Prompt, Seed
from genloop.sampling.maskgit.settings import SamplingConfig
from tests.goldens.roots import golden_paths


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def read_arrays(path: Path) -> dict[str, Tensor]:
    """An npz file as tensors."""
    with np.load(path) as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


@dataclass(frozen=True)
class ShowOSet:
    """One recorded model."""

    folder: Path

    @cached_property
    def model(self) -> ShowO:
        torch.set_num_threads(1)  # as recorded
        sizes = read_json(self.folder / "tiny_config.json")
        return load_showo(self.folder, max_seq_length=sizes["max_seq_length"])

    @property
    def config(self) -> ShowOConfig:
        return self.model.config

    @cached_property
    def layout(self) -> Layout:
        return Layout(self.config, self.model.text_tokenizer)

    @cached_property
    def prompting(self) -> dict[str, Any]:
        return read_json(self.folder / "prompting.json")

    def arrays(self, name: str) -> dict[str, Tensor]:
        return read_arrays(self.folder / name)

    def codes(self, ids: Tensor) -> Tensor:
        """ids (R, L) of t2i rows -> their image codes (R, n), K where masked."""
        return ids[:, self.config.text_length + 1 : -1] - self.config.code_offset


@lru_cache
def set_of(folder: Path) -> ShowOSet:
    return ShowOSet(folder)


def sets_with(name: str) -> list[ShowOSet]:
    """Every set that holds a file of that name."""
    found = [path.parent for path in golden_paths(f"showo/**/{name}")]
    return [set_of(folder) for folder in found if (folder / "tiny_config.json").is_file()]


@dataclass(frozen=True)
class Run:
    """One recorded generation: its settings and everything that was drawn."""

    golden: ShowOSet
    name: str

    @cached_property
    def arrays(self) -> dict[str, Tensor]:
        return self.golden.arrays(f"generate_{self.name}.npz")

    @cached_property
    def keys(self) -> dict[str, Any]:
        return read_json(self.golden.folder / "generate.json")[self.name]

    @property
    def settings(self) -> SamplingConfig:
        return SamplingConfig(
            steps=self.keys["steps"],
            guidance_scale=float(self.keys["guidance"]),
            temperature=float(self.keys["temperature"]),
            schedule=self.keys.get("schedule", "cosine"),
            temperature_mode="cumulative",
        )

    @property
    def prompts(self) -> list[Prompt]:
        return [Prompt(row, self.golden.prompting["prompts"][row]) for row in self.keys["rows"]]

    @property
    def seeds(self) -> list[Seed]:
        """Keys that tell `RecordedNoise` which row to look up."""
        return [Seed(0, 0, 0, row) for row in range(len(self.keys["rows"]))]

    @property
    def start(self) -> Tensor:
        """(R, n) codes before the first step, K where masked."""
        return self.golden.codes(self.arrays["input_ids"])


def runs() -> list[Run]:
    """Every recorded generation of every set."""
    return [Run(golden, name) for golden in sets_with("generate.json") for name in _names(golden)]


def _names(golden: ShowOSet) -> list[str]:
    return list(read_json(golden.folder / "generate.json"))


@dataclass(frozen=True)
class RecordedNoise:
    """A NoiseSource that repeats the draws of a recorded run; a row's index is its seed's candidate."""

    run: Run

    def tokens(self, seeds: Sequence[Seed], num_tokens: int, steps: Sequence[int], rounds: Sequence[int]) -> Any:
        drawn = self._rows("raw_multinomial", seeds, steps)
        return lambda probs, at: drawn[at]

    def uniforms(self, seeds: Sequence[Seed], num_tokens: int, steps: Sequence[int], rounds: Sequence[int]) -> Tensor:
        return self._rows("uniform", seeds, steps)

    def _rows(self, name: str, seeds: Sequence[Seed], steps: Sequence[int]) -> Tensor:
        return torch.stack([self.run.arrays[name][step, seed.candidate] for seed, step in zip(seeds, steps)])


@dataclass(frozen=True)
class NoPixels:
    """An image tokenizer for tests that only look at tokens."""

    num_codes: int
    grid: tuple[int, int]

    def encode(self, images: Tensor) -> Tensor:
        raise NotImplementedError

    def decode(self, codes: Tensor, shape: tuple[int, int] | None = None) -> Tensor:
        raise NotImplementedError


def no_pixels(golden: ShowOSet) -> NoPixels:
    return NoPixels(golden.config.codebook_size, golden.config.grid)
