"""Answers in words about an image (Show-o's mmu mode), with keys and values kept.

B = images, n = image tokens, P = tokens seen so far, Q = new tokens, V = vocabulary. The image part is seen whole by
everyone; the question and the answer are causal.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from genloop.models.showo.model import ShowO, additive_mask
from genloop.models.showo.prefix import MIN_GEMM_ROWS, run_layers
from genloop.models.showo.prompting import Layout


class _Growing:
    """Puts new keys and values behind the old ones and keeps both."""

    def __init__(self) -> None:
        self.layers: dict[int, tuple[Tensor, Tensor]] = {}

    def update(self, keys: Tensor, values: Tensor, layer_idx: int) -> tuple[Tensor, Tensor]:
        if layer_idx in self.layers:
            old_keys, old_values = self.layers[layer_idx]
            keys, values = torch.cat([old_keys, keys], dim=2), torch.cat([old_values, values], dim=2)
        self.layers[layer_idx] = keys, values
        return keys, values


@torch.inference_mode()
def answer(
    model: ShowO,
    codes: Tensor,
    questions: Sequence[str],
    *,
    max_new_tokens: int = 100,
    top_k: int = 1,
    temperature: float = 1.0,
    uniforms: Tensor | None = None,
) -> list[str]:
    """codes (B, n) and one question each -> the answers.

    top_k=1 is greedy. Otherwise `uniforms` (B, max_new_tokens) in [0, 1) decide among the top_k likeliest tokens.
    Image codes are ruled out. Rows of equal question length share forward passes.
    """
    if top_k > 1 and uniforms is None:
        raise ValueError(f"top_k={top_k} draws tokens: give uniforms (B, max_new_tokens)")
    layout = Layout(model.config, model.text_tokenizer)
    asked = [layout.mmu_question(question) for question in questions]
    groups: dict[int, list[int]] = {}
    for row, ids in enumerate(asked):
        groups.setdefault(len(ids), []).append(row)
    answers = [""] * len(asked)
    for rows in groups.values():
        image = layout.mmu_image(codes[rows].to(model.device))
        text = torch.tensor([asked[row] for row in rows], device=model.device)
        numbers = None if uniforms is None else uniforms[rows].to(model.device)
        for row, ids in zip(rows, _generate(model, image, text, max_new_tokens, top_k, temperature, numbers)):
            answers[row] = model.text_tokenizer.decode(ids)
    return answers


def _generate(
    model: ShowO,
    image: Tensor,
    text: Tensor,
    max_new_tokens: int,
    top_k: int,
    temperature: float,
    uniforms: Tensor | None,
) -> list[list[int]]:
    """image (B, n + 3), text (B, Q) -> the new ids of each row, without the end token."""
    repeats = -(-MIN_GEMM_ROWS // len(image))  # even a single new token fills a matrix product
    cache = _Growing()
    run_layers(model, image.repeat(repeats, 1), 0, cache, is_causal=False)
    new, position = text.repeat(repeats, 1), image.shape[1]
    written: list[list[int]] = [[] for _ in image]
    open_rows = set(range(len(image)))
    for step in range(max_new_tokens):
        hidden = run_layers(model, new, position, cache, is_causal=False, mask=_causal(new, position, model.dtype))
        position += new.shape[1]
        logits = model.showo.lm_head(hidden[:, -1])[: len(image), : model.config.llm_vocab_size].float() / temperature
        choice = _choose(logits, top_k, None if uniforms is None else uniforms[:, step])
        for row, index in enumerate(choice.tolist()):
            if row in open_rows and index == model.text_tokenizer.eos_id:
                open_rows.discard(row)
            elif row in open_rows:
                written[row].append(index)
        if not open_rows:
            break
        new = choice[:, None].repeat(repeats, 1)
    return written


def _causal(new: Tensor, position: int, dtype: torch.dtype) -> Tensor | None:
    """Additive mask (1, 1, Q, P + Q) of Q new tokens behind P; none is needed for one."""
    if new.shape[1] == 1:
        return None
    allow = torch.ones(new.shape[1], position + new.shape[1], dtype=torch.bool, device=new.device).tril(position)
    return additive_mask(allow[None, None], dtype)


def _choose(logits: Tensor, top_k: int, uniforms: Tensor | None) -> Tensor:
    """logits (B, V) -> ids (B,)"""
    if top_k == 1 or uniforms is None:
        return logits.argmax(-1)
    values, ids = logits.topk(min(top_k, logits.shape[-1]), dim=-1)
    cumulated = values.softmax(-1).cumsum(-1, dtype=torch.float64)
    place = torch.searchsorted(cumulated, (uniforms.double() * cumulated[:, -1])[:, None], right=True)
    return ids.gather(1, place.clamp(max=ids.shape[1] - 1))[:, 0]
