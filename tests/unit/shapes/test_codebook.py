"""The patch codebook is lossless on every scene, held-out combinations included."""

import json

import numpy as np
import pytest
import torch

from genloop.records import COLORS, TAGS
from genloop.shapes.codebook import PatchCodebook, load_codebook
from genloop.shapes.prompts import pool
from genloop.shapes.render import render
from genloop.shapes.scenes import SHAPES, Thing, scene_for

CODEBOOK = PatchCodebook.enumerate()


def pixels(scenes) -> torch.Tensor:
    return torch.from_numpy(render(scenes)).permute(0, 3, 1, 2).float() / 255


def test_every_scene_comes_back_unchanged():
    rng = np.random.default_rng(0)
    prompts = [prompt for tag in TAGS for name in ("test", "heldout") for prompt in pool(name, tag)[:150]]
    images = pixels([scene_for(prompt, rng) for prompt in prompts])
    codes = CODEBOOK.encode(images)
    assert codes.shape == (len(prompts), 36)
    assert codes.dtype == torch.int64
    assert torch.equal(CODEBOOK.decode(codes), images)


def test_every_shape_in_every_colour_in_every_cell_is_lossless():
    scenes = [(Thing(s, c, (i * 3 + j) % 5, i % 5),) for i, s in enumerate(SHAPES) for j, c in enumerate(COLORS)]
    images = pixels(scenes)
    assert torch.equal(CODEBOOK.decode(CODEBOOK.encode(images)), images)


def test_codes_are_distinct_patches_and_the_background_is_code_0():
    assert CODEBOOK.num_codes == len({patch.numpy().tobytes() for patch in CODEBOOK.patches}) == 351
    assert CODEBOOK.background_code == 0
    assert (CODEBOOK.encode(pixels([()])) == 0).all()


def test_unknown_patches_get_the_nearest_code():
    images = (pixels([(Thing("star", "red", 1, 1),)]) + 0.02 * torch.sin(torch.arange(576.0)).view(1, 1, 24, 24)).clamp(
        0, 1
    )
    assert torch.equal(CODEBOOK.encode(images), CODEBOOK.encode(pixels([(Thing("star", "red", 1, 1),)])))
    noise = torch.rand(2, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    assert CODEBOOK.encode(noise).max() < CODEBOOK.num_codes


def test_other_grids_are_decoded_and_wrong_ones_refused():
    codes = torch.arange(6)[None]
    image = CODEBOOK.decode(codes, (2, 3))
    assert image.shape == (1, 3, 8, 12)
    assert torch.equal(CODEBOOK.encode(image), codes)
    with pytest.raises(ValueError, match=r"6 codes .*6 x 6"):
        CODEBOOK.decode(codes)
    with pytest.raises(ValueError, match="multiples of 4"):
        CODEBOOK.encode(torch.zeros(1, 3, 22, 24))


def test_saved_and_loaded_it_is_the_same(tmp_path):
    CODEBOOK.save(tmp_path / "a")
    CODEBOOK.save(tmp_path / "b")
    loaded = load_codebook(tmp_path / "a")
    assert torch.equal(loaded.patches, CODEBOOK.patches)
    assert (loaded.grid, loaded.background_code) == ((6, 6), 0)
    assert (tmp_path / "a/pytorch_model.safetensors").read_bytes() == (
        tmp_path / "b/pytorch_model.safetensors"
    ).read_bytes()


def test_another_class_of_checkpoint_is_refused(tmp_path):
    CODEBOOK.save(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "MAGVITv2"}))
    with pytest.raises(ValueError, match="not 'PatchCodebook'"):
        load_codebook(tmp_path)
