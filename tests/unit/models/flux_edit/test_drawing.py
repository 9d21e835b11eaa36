"""All modes of the editor on its tiny twin: what counts, what must not, and what stock pipelines would get wrong."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from genloop.models.flux_edit import load
from genloop.models.flux_edit.drawing import Control, Drawing, Focus
from genloop.models.flux_edit.encode import Conditions, connect, picture_tokens, pooled_text, text_tokens
from genloop.models.flux_edit.needs import COMPONENTS, MODES, Mode
from genloop.models.flux_edit.pipelines import Drawer

FOLDER = Path(__file__).parents[4] / "ckpts/tiny/flux_edit"
SIZE = (64, 32)
SAME = {"atol": 1e-5, "rtol": 0.0}  # batches of float32


@cache
def drawer() -> Drawer:
    return load.load_drawer(FOLDER, COMPONENTS, dtype="float32", device="cpu")


@cache
def qwen() -> tuple[Any, Any, Any]:
    return load.load_qwen(FOLDER, dtype=torch.float32, device="cpu")


def picture(seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)


@cache
def conditions() -> Conditions:
    connector = load.load_connector(FOLDER)
    tokens = [picture_tokens(*qwen(), picture(seed), num_tokens=count) for seed, count in ((0, 8), (1, 12))]
    text = text_tokens(*load.load_text_encoder(FOLDER, "t5", dtype=torch.float32, device="cpu"), ["a dog"])[0]
    pooled = pooled_text(*load.load_text_encoder(FOLDER, "clip", dtype=torch.float32, device="cpu"))
    own, other = (connect(connector, part, None) for part in tokens)
    return Conditions(own, other, text, pooled, (tokens[0].shape[0], tokens[0].shape[1]))


def drawing(mode: Mode, **changes: Any) -> Drawing:
    mask = np.zeros((SIZE[1], SIZE[0]), dtype=bool)
    mask[:, :32] = True
    controls = (Control("depth", picture(2), 0.2), Control("line", picture(3), 0.4))
    base = Drawing(mode, SIZE, steps=2, strength=0.8, picture=picture(0), mask=mask, paste=False, controls=controls)
    return replace(base, **changes)


def draw(mode: Mode, seeds: tuple[int, ...] = (1,), given: Conditions | None = None, **changes: Any) -> Tensor:
    return drawer().draw(drawing(mode, **changes), given or conditions(), seeds)


def difference(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max())


@pytest.mark.parametrize("mode", MODES)
def test_an_image_does_not_depend_on_those_beside_it(mode: Mode) -> None:
    together = draw(mode, (1, 2, 3))
    torch.testing.assert_close(together, torch.cat([draw(mode, (seed,)) for seed in (1, 2, 3)]), **SAME)
    assert difference(together[0], together[1]) > 0.1


@pytest.mark.parametrize("mode", MODES)
def test_the_prompt_counts(mode: Mode) -> None:
    given = conditions()
    assert given.text is not None
    assert difference(draw(mode), draw(mode, given=replace(given, text=given.text * 2))) > 1e-4
    assert difference(draw(mode), draw(mode, given=replace(given, text=None))) > 1e-4


@pytest.mark.parametrize("mode", MODES)
def test_the_reference_is_what_the_transformer_reads(mode: Mode) -> None:
    given = conditions()
    assert given.reference is not None
    assert difference(draw(mode), draw(mode, given=replace(given, reference=given.reference * 2))) > 1e-4


@pytest.mark.parametrize("mode", ["controlnet", "controlnet-inpaint"])
def test_the_controlnet_reads_the_picture_itself_however_many_tokens_the_reference_has(mode: Mode) -> None:
    given = conditions()
    assert given.reference is not None and len(given.reference) != len(given.picture)
    assert difference(draw(mode), draw(mode, given=replace(given, picture=given.picture * 2))) > 1e-4


@pytest.mark.parametrize("mode", ["controlnet", "controlnet-inpaint"])
@pytest.mark.parametrize("place", [0, 1])
def test_every_control_has_an_effect_that_its_strength_scales_to_nothing(mode: Mode, place: int) -> None:
    def with_control(seed: int, strength: float) -> Tensor:
        controls = list(drawing(mode).controls)
        controls[place] = Control(controls[place].name, picture(seed), strength)
        return draw(mode, controls=tuple(controls))

    assert difference(with_control(7, 0.5), with_control(8, 0.5)) > 1e-3
    assert torch.equal(with_control(7, 0.0), with_control(8, 0.0))


@pytest.mark.parametrize("mode", ["img2img", "controlnet"])
def test_at_full_strength_nothing_of_the_pixels_is_left(mode: Mode) -> None:
    torch.testing.assert_close(
        draw(mode, picture=picture(0), strength=1.0), draw(mode, picture=picture(5), strength=1.0), **SAME
    )
    assert difference(draw(mode, picture=picture(0), strength=0.5), draw(mode, picture=picture(5), strength=0.5)) > 0.1


@pytest.mark.parametrize(("strength", "passes"), [(0.05, 2), (0.25, 7), (1.0, 28)])
def test_as_many_steps_are_left_for_a_strength_as_released(strength: float, passes: int) -> None:
    calls: list[int] = []
    hook = drawer().transformer.register_forward_pre_hook(lambda *_: calls.append(1))
    draw("img2img", strength=strength, steps=28)
    hook.remove()
    assert len(calls) == passes


@pytest.mark.parametrize("mode", ["inpaint", "controlnet-inpaint"])
def test_pixels_outside_of_the_mask_stay(mode: Mode) -> None:
    def pixels(wanted: Drawing) -> np.ndarray:
        drawn = drawer().decode(wanted, drawer().draw(wanted, conditions(), (1,)))
        return np.asarray(drawn[0].permute(1, 2, 0)) * 255

    half = pixels(drawing(mode, paste=True))
    np.testing.assert_allclose(half[:, 32:], picture(0)[:, 32:], atol=1e-3)
    assert np.abs(half[:, :32] - picture(0)[:, :32]).max() > 5
    nothing = pixels(drawing(mode, paste=True, mask=np.zeros((SIZE[1], SIZE[0]), dtype=bool)))
    np.testing.assert_allclose(nothing, picture(0), atol=1e-3)


@pytest.mark.parametrize("mode", ["inpaint", "controlnet-inpaint"])
def test_with_an_empty_mask_the_prompt_has_no_effect(mode: Mode) -> None:
    given, empty = conditions(), np.zeros((SIZE[1], SIZE[0]), dtype=bool)
    assert given.text is not None
    other = replace(given, text=given.text * 2)
    torch.testing.assert_close(draw(mode, mask=empty), draw(mode, given=other, mask=empty), **SAME)


@pytest.mark.parametrize(("size", "tokens", "grid"), [((64, 64), 16, (4, 4)), ((96, 48), 8, (2, 4))])
def test_a_picture_becomes_as_many_tokens_as_its_shape_allows(
    size: tuple[int, int], tokens: int, grid: tuple[int, int]
) -> None:
    assert picture_tokens(*qwen(), picture(0, size), num_tokens=tokens).shape[:2] == grid


def test_what_follows_the_picture_does_not_reach_its_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    short = picture_tokens(*qwen(), picture(0), num_tokens=8)
    monkeypatch.setattr("genloop.models.flux_edit.encode.CLOSING", "<|vision_end|>Describe this image.<|im_end|>\n")
    torch.testing.assert_close(short, picture_tokens(*qwen(), picture(0), num_tokens=8), **SAME)


def test_tokens_outside_of_the_focus_are_the_connectors_bias() -> None:
    connector, tokens = load.load_connector(FOLDER), picture_tokens(*qwen(), picture(0, (96, 96)), num_tokens=16)
    found = connect(connector, tokens, Focus(0.1, 0.1, 0.3)).view(4, 4, -1)
    torch.testing.assert_close(found[3, 3], connector.linear.bias.float())
    assert difference(found[0, 0], connector.linear.bias) > 1e-3
