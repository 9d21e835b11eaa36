"""Tiles of a judge: one padded square as published, and tiles at the image's own size as in transformers."""

import numpy as np
import pytest
import torch
from PIL import Image

from genloop.models.llava.config import LlavaConfig
from genloop.models.llava.model import image_features
from genloop.models.llava.pixels import anyres_tiles, best_resolution, pad_tile
from genloop.rewards.llava.pieces import PieceRunner, image_piece
from tests.worlds.tiny_llava import tiny_dims, tiny_llava

SIZES = [(384, 384), (256, 256), (60, 100), (100, 60), (500, 390), (1, 7), (3000, 200)]
PINPOINTS = LlavaConfig().pinpoints


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_a_padded_tile_shows_the_whole_image_between_grey(height: int, width: int) -> None:
    tile = pad_tile(picture(height, width), 384)
    side = max(height, width)
    square = np.full((side, side, 3), 127, dtype=np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = picture(height, width)
    resized = np.asarray(Image.fromarray(square).resize((384, 384), Image.Resampling.BICUBIC))
    expected = (torch.from_numpy(resized.copy()).permute(2, 0, 1) / 255 - 0.5) / 0.5
    assert torch.equal(tile, expected)


def test_an_image_of_the_towers_size_is_not_resampled() -> None:
    tile = pad_tile(picture(24, 24), 24)
    assert torch.equal(((tile * 0.5 + 0.5) * 255).round().byte().permute(1, 2, 0), torch.from_numpy(picture(24, 24)))


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_tiles_are_those_of_transformers(height: int, width: int) -> None:
    from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
        LlavaOnevisionImageProcessorPil,
    )

    stock = LlavaOnevisionImageProcessorPil(  # as in the public preprocessor_config.json
        size={"height": 384, "width": 384},
        image_grid_pinpoints=list(PINPOINTS),
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
    )
    recorded = stock(Image.fromarray(picture(height, width)), return_tensors="pt").pixel_values[0]
    tiles = anyres_tiles(picture(height, width), 384, PINPOINTS)
    rows, columns = best_resolution((height, width), PINPOINTS)
    assert len(tiles) == 1 + (rows // 384) * (columns // 384)
    assert tiles.shape == recorded.shape
    assert torch.allclose(tiles, recorded, atol=1e-6)


def test_the_best_picture_shows_most_and_wastes_least() -> None:
    assert best_resolution((256, 256), PINPOINTS) == (384, 384)
    assert best_resolution((300, 700), PINPOINTS) == (384, 768)
    assert best_resolution((5000, 5000), PINPOINTS) == (2304, 2304)


@pytest.mark.parametrize(("height", "width"), [(40, 30), (26, 26), (30, 120), (200, 200)])
@torch.inference_mode()
def test_features_of_tiles_are_those_of_the_stock_model(height: int, width: int) -> None:
    model, config = tiny_llava(), tiny_dims()
    runner = PieceRunner(model, config, "anyres", 16384, 0)
    piece = image_piece(picture(height, width))
    features = runner._features([piece])[piece]
    tiles = anyres_tiles(picture(height, width), 26, config.pinpoints)
    outputs = model.model.get_image_features(tiles[None], torch.tensor([[height, width]]))
    assert features.shape == outputs.pooler_output[0].shape
    assert (features - outputs.pooler_output[0]).abs().max() <= 1e-5
    base = image_features(model, tiles[:1])[0, :-1]
    assert (features[: len(base)] - base).abs().max() <= 1e-5
