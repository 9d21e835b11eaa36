"""Focus, sizes and needs of Qwen2vl-Flux: published values, and ours where the published ones are not exact."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genloop.models.flux_edit.focus import focus_map
from genloop.models.flux_edit.needs import COMPONENTS, MODES, Mode, Wish, needed
from genloop.models.flux_edit.sizes import RATIOS, fitting_size, ratio_size

PUBLISHED = json.loads((Path(__file__).parents[3] / "data" / "flux_edit" / "published.json").read_text())
BASE = {"qwen", "connector", "clip", "transformer", "vae"}


@pytest.mark.parametrize("case", PUBLISHED["focus"], ids=lambda case: f"{case['shape']}-{case['cx']}-{case['r']}")
def test_the_published_focus_is_that_of_the_released_code(case: dict[str, Any]) -> None:
    found = focus_map(*case["shape"], case["cx"], case["cy"], case["r"], published=True)
    np.testing.assert_allclose(found, case["matrix"], atol=1e-6)


def test_the_exact_focus_has_the_symmetry_of_its_point() -> None:
    middle = focus_map(8, 8, 0.5, 0.5, 0.3)
    assert (middle == middle[::-1]).all() and (middle == middle[:, ::-1]).all() and (middle == middle.T).all()
    np.testing.assert_allclose(focus_map(6, 10, 0.2, 0.3, 0.5), focus_map(6, 10, 0.8, 0.3, 0.5)[:, ::-1], atol=1e-6)


def test_a_focus_without_a_radius_is_refused() -> None:
    """The released code divided by it: every weight was not a number."""
    with pytest.raises(ValueError, match=r"focus\.radius"):
        focus_map(4, 4, 0.5, 0.5, 0.0)


@pytest.mark.parametrize("case", PUBLISHED["sizes"], ids=lambda case: "x".join(map(str, case["inp"])))
def test_sizes_with_multiples_of_8_are_those_of_the_released_code(case: dict[str, Any]) -> None:
    if isinstance(case["out"], str):
        with pytest.raises(ValueError, match="too small"):
            fitting_size(*case["inp"], multiple=8)
    else:
        assert list(fitting_size(*case["inp"], multiple=8)) == case["out"]


@pytest.mark.parametrize("size", [(4000, 3000), (777, 333), (1921, 1081), (16, 16)])
def test_sizes_are_what_flux_can_draw(size: tuple[int, int]) -> None:
    """The released code cut to multiples of 8, which the pipelines then cut to 16 without a word."""
    width, height = fitting_size(*size)
    assert width % 16 == height % 16 == 0 and width * height <= 1_050_000


def test_every_aspect_ratio_is_a_size_that_flux_can_draw() -> None:
    assert all(ratio_size(name) == size for name, size in RATIOS.items())
    for name, most in ((name, most) for name in RATIOS for most in (1200, 12_288, 500_000)):
        width, height = ratio_size(name, max_pixels=most)
        assert width % 16 == height % 16 == 0 and 0 < width * height <= most
    with pytest.raises(ValueError, match="max_pixels"):
        ratio_size("1:1", max_pixels=255)
    with pytest.raises(ValueError, match="aspect_ratio"):
        ratio_size("5:4")


@pytest.mark.parametrize(
    ("wish", "more"),
    [
        (Wish("variation"), set()),
        (Wish("variation", has_prompt=True), {"t5", "t5_embedder"}),
        (Wish("img2img"), set()),
        (Wish("inpaint"), set()),
        (Wish("inpaint", mask_from_points=True), {"sam2"}),
        (Wish("controlnet", line="canny"), {"controlnet"}),
        (Wish("controlnet", line="anyline"), {"controlnet", "anyline"}),
        (Wish("controlnet", depth=True), {"controlnet", "depth"}),
        (
            Wish("controlnet-inpaint", line="lineart", depth=True, has_prompt=True),
            {"controlnet", "depth", "t5", "t5_embedder"},
        ),
    ],
)
def test_a_request_needs_these_components_and_no_more(wish: Wish, more: set[str]) -> None:
    assert set(needed(wish)) == BASE | more


@pytest.mark.parametrize("mode", MODES)
def test_components_come_in_the_order_of_their_stages(mode: Mode) -> None:
    found = needed(Wish(mode, has_prompt=True, depth=True))
    assert list(found) == [name for name in COMPONENTS if name in found]
