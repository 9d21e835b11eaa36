"""Chats computed piece by piece equal chats computed at once, and a row's bits do not depend on other rows."""

import pytest
import torch
from torch import Tensor

from genloop.models.llava.model import Llava, embed_tokens, image_features, language_hidden
from genloop.models.llava.segments import (
    Segment,
    _Cache,
    continue_greedily,
    extend_image,
    extend_text,
    next_logits,
    padded_length,
)
from genloop.models.showo.prefix import MIN_GEMM_ROWS
from tests.worlds.tiny_llava import first_token_logits, tiny_llava

BEFORE = [5, 9, 11]
QUESTIONS = [[20 + row, 30, 31, 32, *range(40, 40 + row)] for row in range(6)]  # 4 to 9 ids
SECOND = [70, 71, 72]


def pixels(count: int) -> Tensor:
    return torch.rand(count, 3, 26, 26, generator=torch.Generator().manual_seed(2)) * 2 - 1


def asked(model: Llava, rows: list[int], shown: Tensor) -> list[Segment]:
    """The question segments of `rows`, each behind its own image, in as few batches as their lengths allow."""
    prefix = extend_text(model, [None], [BEFORE])[0]
    images = extend_image(model, [prefix] * len(rows), image_features(model, shown[rows]))
    found: dict[int, Segment] = {}
    for length in (8, 16):
        places = [place for place, row in enumerate(rows) if padded_length(len(QUESTIONS[row]), prefix) == length]
        if places:
            parents, texts = [images[place] for place in places], [QUESTIONS[rows[place]] for place in places]
            found |= zip(places, extend_text(model, parents, texts))
    return [found[place] for place in range(len(rows))]


def at_once(model: Llava, ids: list[int], shown: Tensor) -> Tensor:
    """Logits (V,) behind the whole chat, in one pass."""
    texts = [embed_tokens(model, torch.tensor(part)) for part in (BEFORE, ids)]
    row = torch.cat([texts[0], image_features(model, shown[None])[0], texts[1]])
    return first_token_logits(model, row[None], torch.tensor([len(row)]))[0]


@torch.inference_mode()
def test_pieces_give_what_one_pass_gives() -> None:
    model, shown = tiny_llava(), pixels(6)
    segments = asked(model, list(range(6)), shown)
    for row, logits in enumerate(next_logits(model, segments)):
        assert (logits - at_once(model, QUESTIONS[row], shown[row])).abs().max() <= 1e-5
        assert segments[row].position == len(BEFORE) + 37 + len(QUESTIONS[row])


@torch.inference_mode()
def test_a_second_turn_goes_on_from_the_first() -> None:
    model, shown = tiny_llava(), pixels(6)
    rows = [0, 1, 2]
    second = extend_text(model, asked(model, rows, shown), [SECOND] * 3)
    for row, logits in zip(rows, next_logits(model, second)):
        assert (logits - at_once(model, QUESTIONS[row] + SECOND, shown[row])).abs().max() <= 1e-5


@torch.inference_mode()
def test_a_chat_may_start_with_its_image() -> None:
    model, shown = tiny_llava(), pixels(1)
    image = extend_image(model, [None], image_features(model, shown))
    logits = next_logits(model, extend_text(model, image, [SECOND]))[0]
    row = torch.cat([image_features(model, shown)[0], embed_tokens(model, torch.tensor(SECOND))])
    assert (logits - first_token_logits(model, row[None], torch.tensor([40]))[0]).abs().max() <= 1e-5


@pytest.mark.parametrize("rows", [[0], [3, 0], [5, 4, 3, 2, 1, 0], [2, 2, 5]], ids=str)
@torch.inference_mode()
def test_a_row_has_the_same_bits_in_every_batch(rows: list[int]) -> None:
    model, shown = tiny_llava(), pixels(6)
    together = next_logits(model, asked(model, list(range(6)), shown))
    here = next_logits(model, asked(model, rows, shown))
    assert all(torch.equal(logits, together[row]) for row, logits in zip(rows, here))


@torch.inference_mode()
def test_words_are_those_of_the_stock_generation() -> None:
    model, shown = tiny_llava(), pixels(6)
    rows = [0, 1, 2, 3]
    end = 150
    words = continue_greedily(model, asked(model, rows, shown), max_new_tokens=7, num_tokens=160, end=end)
    for row, ids in zip(rows, words):
        expected: list[int] = []
        while len(expected) < 7:
            following = int(at_once(model, QUESTIONS[row] + expected, shown[row]).argmax())
            if following == end:
                break
            expected.append(following)
        assert ids == expected
        alone = continue_greedily(model, asked(model, [row], shown), max_new_tokens=7, num_tokens=160, end=end)
        assert alone == [ids]


@torch.inference_mode()
def test_words_end_at_the_end_token() -> None:
    model, shown = tiny_llava(), pixels(6)
    segments = asked(model, [0, 1], shown)
    first, second = continue_greedily(model, segments, max_new_tokens=5, num_tokens=160, end=None)
    assert len(first) == len(second) == 5
    cut = continue_greedily(model, segments, max_new_tokens=5, num_tokens=160, end=first[2])
    assert cut[0] == first[: first.index(first[2])]
    assert max(map(max, continue_greedily(model, segments, max_new_tokens=5, num_tokens=9, end=None))) < 9


@pytest.mark.parametrize("length", [6, 20, 150])  # shorter than a tail; a short query padded in front; one with a mask
@torch.inference_mode()
def test_the_last_positions_do_not_need_the_others_last_states(length: int) -> None:
    model = tiny_llava()
    embeds = embed_tokens(model, torch.arange(2 * length).view(2, length) % 90)
    whole, part = _Cache([None, None]), _Cache([None, None])
    hidden = language_hidden(model, embeds, cache=whole)
    last = language_hidden(model, embeds, cache=part, tail=MIN_GEMM_ROWS)
    assert (last - hidden[:, -MIN_GEMM_ROWS:]).abs().max() <= 1e-5
    for kept, full in zip([*part.new_keys, *part.new_values], [*whole.new_keys, *whole.new_values], strict=True):
        assert kept.shape == full.shape and (kept - full).abs().max() <= 1e-5
