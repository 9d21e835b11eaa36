"""A small LLaVA-OneVision with a tokenizer of words, for tests."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from genloop.models.llava.config import LlavaConfig, TextDims, VisionDims
from genloop.models.llava.load import build_llava, save_llava
from genloop.models.llava.model import Llava, language_hidden
from genloop.records import Prompt
from genloop.rewards.questions import RELEASED

CHAT = ("<|im_start|>", "<|im_end|>", "<image>")
PROMPTS = ("a red square", "two blue circles", "a photo of a green triangle left of a yellow star", "a star")


def tiny_dims() -> LlavaConfig:
    """37 image positions, an odd width of the tower's inner layer, grouped key heads."""
    vision = VisionDims(
        hidden_size=24, intermediate_size=41, num_hidden_layers=2, num_attention_heads=2, image_size=26, patch_size=4
    )
    text = TextDims(
        hidden_size=32,
        intermediate_size=61,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=160,
        max_position_embeddings=2048,
        initializer_range=0.2,
    )
    return LlavaConfig(vision=vision, text=text, image_token_index=3, video_token_index=3)


def tiny_llava(config: LlavaConfig | None = None, *, seed: int = 1) -> Llava:
    torch.set_num_threads(1)
    return build_llava(config or tiny_dims(), seed=seed).eval()


def word_tokenizer(words: Sequence[str]) -> dict[str, bytes]:
    """The files of a tokenizer that splits at white space and punctuation; unknown words are <unk>."""
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

    vocab = {word: index for index, word in enumerate(dict.fromkeys(["<unk>", *CHAT, *words]))}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace()])
    tokenizer.add_special_tokens([AddedToken(word, special=True, normalized=False) for word in CHAT])
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>", "eos_token": "<|im_end|>"}
    return {"tokenizer.json": tokenizer.to_str().encode(), "tokenizer_config.json": json.dumps(config).encode()}


def known_words() -> list[str]:
    """Every word of the prompts and of the released questions."""
    import re

    text = " ".join([*RELEASED.values(), *PROMPTS, "system user assistant You are a helpful yes no .'"])
    return re.findall(r"\w+|[^\w\s]+", text)


def tiny_folder(folder: Path, *, words: Sequence[str] | None = None, config: LlavaConfig | None = None) -> Path:
    """A checkpoint folder as a judge needs it."""
    save_llava(tiny_llava(config), folder, word_tokenizer(known_words() if words is None else words))
    return folder


def some_prompts() -> list[Prompt]:
    return [Prompt(index, text) for index, text in enumerate(PROMPTS)]


def some_images(count: int, *, height: int = 40, width: int = 32) -> Tensor:
    """(count, 3, height, width) in [0, 1], each a colour with noise."""
    generator = torch.Generator().manual_seed(5)
    colors = torch.rand(count, 3, 1, 1, generator=generator)
    return (colors + 0.3 * torch.rand(count, 3, height, width, generator=generator)).clamp(0, 1)


def first_token_logits(model: Llava, embeds: Tensor, lengths: Tensor) -> Tensor:
    """Embeddings (B, L, D) of rows of `lengths` (B,), pads on the right -> logits of the answer's first token (B, V).

    The head sees each row's last position only. fp32, differentiable.
    """
    hidden = language_hidden(model, embeds)
    last = hidden[torch.arange(len(hidden), device=hidden.device), lengths.to(hidden.device) - 1]
    return model.lm_head(last).float()
