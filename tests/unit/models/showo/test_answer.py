"""Answers about images: equal to running the whole sequence for every word, and independent of the batch."""

import pytest
import torch
from torch import Tensor

from genloop.models.showo.answer import answer
from genloop.models.showo.model import ShowO
from genloop.models.showo.prompting import Layout, prefix_mask
from tests.worlds.tiny_showo import random_codes, tiny_showo

QUESTIONS = ["what is it", "why", "how many", "why"]


@torch.inference_mode()
def recomputed(
    model: ShowO, codes: Tensor, question: str, length: int, top_k: int = 1, uniforms: Tensor | None = None
) -> str:
    """One image (n,), the whole sequence for every new token."""
    layout = Layout(model.config, model.text_tokenizer)
    image = layout.mmu_image(codes[None])[0].tolist()
    ids = image + layout.mmu_question(question)
    new: list[int] = []
    for step in range(length):
        seen = torch.arange(len(ids) + len(new)) < len(image)
        logits = model(torch.tensor([ids + new]), prefix_mask(seen[None]))[0, -1, : model.config.llm_vocab_size]
        values, order = logits.topk(top_k)
        place = 0
        if uniforms is not None:
            place = int((values.softmax(-1).cumsum(-1) <= uniforms[step]).sum().clamp(max=top_k - 1))
        if int(order[place]) == model.text_tokenizer.eos_id:
            break
        new.append(int(order[place]))
    return model.text_tokenizer.decode(new)


def test_a_greedy_answer_equals_the_whole_sequence() -> None:
    model = tiny_showo()
    codes = random_codes(model, len(QUESTIONS))
    answers = answer(model, codes, QUESTIONS, max_new_tokens=12)
    assert answers == [recomputed(model, row, question, 12) for row, question in zip(codes, QUESTIONS)]
    assert any(answers)


def test_a_drawn_answer_equals_the_whole_sequence() -> None:
    model = tiny_showo()
    codes = random_codes(model, len(QUESTIONS))
    uniforms = torch.rand(len(QUESTIONS), 12, generator=torch.Generator().manual_seed(2))
    answers = answer(model, codes, QUESTIONS, max_new_tokens=12, top_k=5, uniforms=uniforms)
    expected = [
        recomputed(model, row, question, 12, 5, numbers) for row, question, numbers in zip(codes, QUESTIONS, uniforms)
    ]
    assert answers == expected
    assert answers != answer(model, codes, QUESTIONS, max_new_tokens=12)


def test_an_answer_does_not_depend_on_its_neighbours() -> None:
    model = tiny_showo()
    codes = random_codes(model, 3)
    together = answer(model, codes, ["why"] * 3, max_new_tokens=8)
    assert together == [answer(model, codes[i : i + 1], ["why"], max_new_tokens=8)[0] for i in range(3)]


def test_drawing_needs_numbers() -> None:
    model = tiny_showo()
    with pytest.raises(ValueError, match=r"top_k=3 .*uniforms"):
        answer(model, random_codes(model, 1), ["why"], top_k=3)
