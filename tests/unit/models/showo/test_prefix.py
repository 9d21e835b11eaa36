"""Running the text once changes nothing: against the full padded forward, and whatever else is in the batch."""

import pytest
import torch
from torch import Tensor

from genloop.models.showo.model import ShowO
from genloop.models.showo.prefix import Prefix, encode_correction, encode_text
from genloop.models.showo.prompting import Layout, omni_mask
from genloop.models.showo.rows import image_hidden
from tests.worlds.tiny_showo import PROMPTS, random_codes, tiny_config, tiny_showo


def prefix_of(model: ShowO, text: str) -> Prefix:
    ids = Layout(model.config, model.text_tokenizer).t2i_text(text)
    return encode_text(model, ids, model.config.text_length - len(ids))


@torch.inference_mode()
def padded(model: ShowO, text: str, codes: Tensor) -> Tensor:
    """Hidden states (B, n, D) of the whole padded sequence."""
    ids = Layout(model.config, model.text_tokenizer).t2i([text] * len(codes), codes)
    return model.hidden(ids, omni_mask(ids, model.config))[:, model.config.text_length + 1 : -1]


@pytest.mark.parametrize("prompt", PROMPTS, ids=lambda prompt: prompt.text[:12])
def test_a_kept_prefix_equals_the_whole_sequence(prompt: object) -> None:
    model = tiny_showo()
    codes = random_codes(model, 3)
    hidden = image_hidden(model, codes, [prefix_of(model, prompt.text)] * 3)
    torch.testing.assert_close(hidden, padded(model, prompt.text, codes), atol=2e-5, rtol=1e-5)


def test_rows_behind_texts_of_any_lengths_share_a_forward() -> None:
    model = tiny_showo()
    codes = random_codes(model, 5)
    prefixes = [prefix_of(model, text) for text in ("a", "red apple", "tan apple", "a", "")]
    assert len(prefixes[1]) == len(prefixes[2]) > len(prefixes[3]) > len(prefixes[4])
    together = image_hidden(model, codes, prefixes)
    for row, prefix in enumerate(prefixes):
        assert torch.equal(together[row], image_hidden(model, codes[row : row + 1], [prefix])[0])


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.6])
def test_what_is_not_wanted_is_left_out_and_changes_nothing(layers: int, share: float) -> None:
    model = tiny_showo(tiny_config(layers=layers))
    codes = random_codes(model, 4)
    prefixes = [prefix_of(model, text) for text in ("a", "a", "two", "")]
    wanted = torch.rand(codes.shape, generator=torch.Generator().manual_seed(3)) < share
    whole, part = image_hidden(model, codes, prefixes), image_hidden(model, codes, prefixes, wanted)
    assert torch.equal(part, whole * wanted[..., None]) and bool(wanted.any()) == (share > 0)


def test_tiny_grids_do_not_fall_below_the_smallest_matrix_product() -> None:
    model = tiny_showo(tiny_config(num_tokens=1))
    codes = random_codes(model, 5)
    prefix = prefix_of(model, "a")
    together = image_hidden(model, codes, [prefix] * 5)
    assert together.shape == (5, 1, 32)
    for row in range(5):
        assert torch.equal(together[row], image_hidden(model, codes[row : row + 1], [prefix])[0])


def test_a_prefix_knows_where_the_image_begins() -> None:
    model = tiny_showo()
    prefix = prefix_of(model, "a")
    assert (len(prefix), prefix.position) == (4, model.config.text_length)
    assert prefix.keys.shape == (2, 4, 4, 8)


@pytest.mark.parametrize("reason", ["", "no dog", "a very long reason " * 9])
def test_a_correction_equals_the_whole_sequence(reason: str) -> None:
    """The old image is seen by all, the words are causal, the new image sees everything."""
    model = tiny_showo()
    config, layout = model.config, Layout(model.config, model.text_tokenizer)
    old, new = random_codes(model, 1, seed=1), random_codes(model, 2, seed=2)
    ids = layout.correction_text(old[0].tolist(), reason, "two dogs")
    assert ids[:2] == [config.mmu_id, config.soi_id] and ids[2:18] == (old[0] + config.code_offset).tolist()
    assert ids[18] == config.eoi_id and ids.index(config.t2i_id) <= 19 + config.max_seq_length
    assert ids[ids.index(config.t2i_id) :] == layout.t2i_text("two dogs")
    hidden = image_hidden(model, new, [encode_correction(model, ids, 19)] * 2)
    image = torch.cat(
        [torch.tensor([[config.soi_id]]), new[:1] + config.code_offset, torch.tensor([[config.eoi_id]])], 1
    )
    for row in range(2):
        image[0, 1:-1] = new[row] + config.code_offset
        whole = torch.cat([torch.tensor([ids]), image], dim=1)
        length = whole.shape[1]
        allow = torch.ones(length, length, dtype=torch.bool).tril()
        allow[:, :19] = True
        allow[len(ids) :] = True
        with torch.inference_mode():
            expected = model.hidden(whole, allow[None, None])[0, len(ids) + 1 : -1]
        torch.testing.assert_close(hidden[row], expected, atol=2e-5, rtol=1e-5)
