"""Sequence layouts at their edges, and masks against the rule written as loops."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from genloop.models.showo.config import ShowOConfig
from genloop.models.showo.prompting import IGNORE, Layout, omni_mask
from tests.worlds.tiny_showo import LetterTokenizer, tiny_config

CONFIG = tiny_config()
LAYOUT = Layout(CONFIG, LetterTokenizer())
N, K = CONFIG.num_vq_tokens, CONFIG.codebook_size


def masked_rows(rows: int) -> Tensor:
    return torch.full((rows, N), K)


@pytest.mark.parametrize("letters", range(18, 28))
def test_the_text_part_always_has_its_width_and_ends_with_eos(letters: int) -> None:
    text = LAYOUT.t2i_text("a" * letters)
    ids = LAYOUT.t2i(["a" * letters], masked_rows(1))
    assert ids.shape == (1, CONFIG.sequence_length)
    assert text[:2] == [CONFIG.t2i_id, 0]
    assert text[-1] == 0
    assert len(text) == min(letters + 3, CONFIG.text_length)
    assert ids[0, CONFIG.text_length - len(text) : CONFIG.text_length].tolist() == text
    assert (ids[0, : CONFIG.text_length - len(text)] == CONFIG.pad_id).all()


def test_an_empty_prompt_is_begin_and_end() -> None:
    assert LAYOUT.t2i_text("") == [CONFIG.t2i_id, 0, 0]


def test_the_code_behind_the_last_stands_for_the_mask() -> None:
    ids = LAYOUT.t2i(["a"], torch.arange(N)[None].clamp(max=K))
    assert ids[0, CONFIG.text_length] == CONFIG.soi_id
    assert ids[0, -1] == CONFIG.eoi_id
    assert (LAYOUT.t2i(["a"], masked_rows(1))[0, CONFIG.text_length + 1 : -1] == CONFIG.mask_token_id).all()


def test_a_dropped_text_is_the_unconditional_one() -> None:
    codes, targets = masked_rows(2), torch.full((2, N), IGNORE)
    targets[:, 3] = 5
    ids, labels = LAYOUT.t2i_training(["red", "red"], codes, targets, [True, False])
    assert torch.equal(ids[:1], LAYOUT.t2i([""], codes[:1]))
    assert torch.equal(ids[1:], LAYOUT.t2i(["red"], codes[1:]))
    image = labels[:, CONFIG.text_length + 1 : -1]
    assert (image[:, 3] == 5 + CONFIG.code_offset).all()
    assert (image == IGNORE).sum() == 2 * (N - 1)


def allowed(ids: list[int], config: ShowOConfig, see_pads: bool) -> list[list[bool]]:
    """The published rule, cell by cell."""
    soi = ids.index(config.soi_id) if config.soi_id in ids else len(ids)
    rule = []
    for i, row in enumerate(ids):
        hides = row != config.pad_id and not see_pads
        rule.append([(j <= i or i >= soi) and not (hides and column == config.pad_id) for j, column in enumerate(ids)])
    return rule


@given(st.integers(0, 6), st.integers(0, 6), st.booleans(), st.booleans())
def test_the_mask_follows_the_rule(pads: int, words: int, has_image: bool, see_pads: bool) -> None:
    image = [CONFIG.soi_id, *range(CONFIG.code_offset, CONFIG.code_offset + 4), CONFIG.eoi_id] if has_image else []
    ids = [CONFIG.pad_id] * pads + [CONFIG.t2i_id, *range(1, words + 1)] + image
    mask = omni_mask(torch.tensor([ids]), CONFIG, see_pads=see_pads)
    assert mask.tolist() == [[allowed(ids, CONFIG, see_pads)]]
    assert mask.any(-1).all(), "a row that sees nothing has no softmax"


def test_a_question_is_asked_as_the_model_was_tuned() -> None:
    assert LAYOUT.mmu_question("x") == [0, *LetterTokenizer().encode("USER: \nx ASSISTANT:")]
