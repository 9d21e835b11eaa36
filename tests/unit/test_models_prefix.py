"""Running the text once changes nothing: against the full padded forward, and whatever else is in the batch."""

import pytest
import torch
from torch import Tensor

from genloop.models.prefix import Prefix, encode_text, image_hidden
from genloop.models.prompting import Layout, omni_mask
from genloop.models.showo import ShowO
from tests.unit.tiny_showo import PROMPTS, random_codes, tiny_config, tiny_showo


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


def test_rows_behind_different_texts_share_a_forward() -> None:
    model = tiny_showo()
    codes = random_codes(model, 2)
    red, blue = prefix_of(model, "red apple"), prefix_of(model, "tan apple")
    assert len(red) == len(blue)
    both = image_hidden(model, codes, [red, blue])
    for row, prefix in enumerate((red, blue)):
        assert torch.equal(both[row], image_hidden(model, codes[row : row + 1], [prefix])[0])


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
