"""Show-o models of a few thousand parameters and tokenizers without files, for tests of models and sampling."""

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from genloop.models.showo.config import PhiDims, ShowOConfig
from genloop.models.showo.load import build_showo
from genloop.models.showo.model import ShowO
from genloop.records import Prompt, Seed

PROMPTS = [
    Prompt(index, text)
    for index, text in enumerate(["", "a", "red apple", "blue apple", "two dogs and a bird", "a very long prompt " * 9])
]


class LetterTokenizer:
    """One token a letter; 0 begins and ends."""

    bos_id = 0
    eos_id = 0
    num_tokens = 28

    def encode(self, text: str) -> list[int]:
        return [27 if letter == " " else 1 + (ord(letter) - ord("a")) % 26 for letter in text]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(" " if index == 27 else chr(ord("a") + index - 1) for index in ids if index)


class GreyTokenizer:
    """Code c is a square of 2 x 2 pixels of grey c / (K - 1)."""

    def __init__(self, num_codes: int, grid: tuple[int, int]) -> None:
        self.num_codes, self.grid = num_codes, grid

    def encode(self, images: Tensor) -> Tensor:
        return (images[:, 0, ::2, ::2] * (self.num_codes - 1)).round().long().flatten(1)

    def decode(self, codes: Tensor, shape: tuple[int, int] | None = None) -> Tensor:
        grey = codes.float().unflatten(1, shape or self.grid) / (self.num_codes - 1)
        return grey.repeat_interleave(2, 1).repeat_interleave(2, 2)[:, None].expand(-1, 3, -1, -1)


def tiny_config(
    *, num_tokens: int = 16, codebook_size: int = 24, width: int = 32, heads: int = 4, layers: int = 2
) -> ShowOConfig:
    phi = PhiDims(
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        initializer_range=0.3,
    )
    return ShowOConfig(
        codebook_size=codebook_size, num_vq_tokens=num_tokens, llm_vocab_size=28, max_seq_length=24, phi=phi
    )


@lru_cache
def tiny_showo(config: ShowOConfig | None = None) -> ShowO:
    """Random weights, large enough that rows, texts and steps differ. One thread: more only wait for each other.

    One for all tests, which may learn with it although the first one that asked was not to.
    """
    torch.set_num_threads(1)
    with torch.inference_mode(mode=False):
        return build_showo(config or tiny_config(), seed=5, text_tokenizer=LetterTokenizer()).eval()


def pixels_of(model: ShowO) -> GreyTokenizer:
    return GreyTokenizer(model.config.codebook_size, model.config.grid)


def seeds_of(prompts: Sequence[Prompt], *, run: int = 0, candidate: int = 0) -> list[Seed]:
    return [Seed(run, prompt.index, 0, candidate) for prompt in prompts]


def random_codes(model: ShowO, rows: int, seed: int = 0) -> Tensor:
    """(rows, n) codes."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(model.config.codebook_size, (rows, model.config.num_vq_tokens), generator=generator)
