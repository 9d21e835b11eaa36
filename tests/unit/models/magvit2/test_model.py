"""MAGVIT-v2 at tiny size: shapes, codes as bits, independence of the batch, saving, and what is refused."""

from functools import lru_cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from genloop.models.common.image_tokenizers import check_image_tokenizer, load_image_tokenizer, takes_dtype
from genloop.models.common.memory import Budget
from genloop.models.magvit2.config import MagvitConfig, check_magvit2_folder, magvit2_manifest, read_magvit2_config
from genloop.models.magvit2.load import build_magvit2, load_magvit2, save_magvit2
from genloop.models.magvit2.model import Decoder, MagvitV2

TINY = MagvitConfig(
    num_bits=5,
    width=8,
    encoder_mult=(1, 2, 2),
    encoder_blocks=(1, 2, 1),
    decoder_mult=(1, 1, 2),
    decoder_blocks=(2, 1, 1),
    num_groups=4,
    resolution=16,
)


@lru_cache
def tiny() -> MagvitV2:
    return build_magvit2(TINY, seed=3).requires_grad_(False).eval()


def images(rows: int, height: int, width: int) -> Tensor:
    return torch.rand(rows, 3, height, width, generator=torch.Generator().manual_seed(1))


def test_the_public_sizes_are_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"_class_name": "MAGVITv2", "_diffusers_version": "0.30.1"}')
    config = read_magvit2_config(tmp_path)
    assert config == MagvitConfig()
    assert (config.num_codes, config.factor, config.grid) == (8192, 16, (16, 16))
    assert set(MagvitConfig().to_json()) == {"_class_name", "_diffusers_version"}


def test_the_manifest_is_the_state_dict() -> None:
    assert magvit2_manifest(TINY) == {key: tuple(value.shape) for key, value in tiny().state_dict().items()}


@pytest.mark.parametrize("shape", [(4, 4), (2, 6), (5, 3)])
def test_codes_and_pixels_have_the_grid_of_the_image(shape: tuple[int, int]) -> None:
    codes = tiny().encode(images(2, shape[0] * 4, shape[1] * 4))
    assert codes.shape == (2, shape[0] * shape[1])
    assert (codes >= 0).all()
    assert (codes < tiny().num_codes).all()
    pixels = tiny().decode(codes, shape)
    assert pixels.shape == (2, 3, shape[0] * 4, shape[1] * 4)
    assert pixels.min() >= 0
    assert pixels.max() <= 1


def test_a_grid_is_square_unless_a_shape_is_given() -> None:
    codes = tiny().encode(images(1, 16, 16))
    assert torch.equal(tiny().decode(codes), tiny().decode(codes, (4, 4)))
    with pytest.raises(ValueError, match=r"12 codes .*4x4"):
        tiny().decode(codes[:, :12])


def test_an_image_that_does_not_divide_into_tokens_is_refused() -> None:
    with pytest.raises(ValueError, match=r"18x16 pixels .*4x4"):
        tiny().encode(images(1, 18, 16))


def test_neighbours_in_a_batch_change_nothing() -> None:
    batch = images(5, 16, 16)
    codes = tiny().encode(batch)
    pixels = tiny().decode(codes)
    for row in range(5):
        assert torch.equal(tiny().encode(batch[row : row + 1])[0], codes[row])
        assert torch.equal(tiny().encode(batch[row][None].contiguous(memory_format=torch.channels_last))[0], codes[row])
        assert torch.equal(tiny().decode(codes[row : row + 1])[0], pixels[row])


def test_images_share_passes_on_a_gpu_as_many_as_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    model, sizes = tiny(), []
    codes = model.encode(images(7, 16, 16))
    pixels = model.decode(codes)

    def tight(bits: Tensor) -> Tensor:
        sizes.append(len(bits))
        if len(bits) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return Decoder.forward(model.decoder, bits)

    assert (model.images_per_pass, model.budget.limit) == (1, 16)
    monkeypatch.setattr(MagvitV2, "images_per_pass", 16)
    assert torch.equal(model.encode(images(7, 16, 16)), codes)
    monkeypatch.setattr(model, "budget", Budget(4, "images in a pass"))
    monkeypatch.setattr(model.decoder, "forward", tight)
    torch.testing.assert_close(model.decode(codes), pixels, atol=1e-5, rtol=1e-5)
    assert sizes == [4, 2, 2, 2, 1]


def test_a_tokenizer_may_be_held_in_half_precision(tmp_path: Path) -> None:
    save_magvit2(tiny(), tmp_path / "vq")
    half = load_image_tokenizer(tmp_path / "vq", dtype="bfloat16")
    codes = tiny().encode(images(2, 16, 16))
    pixels = half.decode(codes)
    assert pixels.dtype == torch.float32
    torch.testing.assert_close(pixels, tiny().decode(codes), atol=0.05, rtol=0.05)
    assert takes_dtype(tmp_path / "vq", None, "bfloat16")
    (tmp_path / "vq" / "config.json").write_text('{"_class_name": "PatchCodebook"}')
    assert not takes_dtype(tmp_path / "vq", None, "bfloat16")
    assert not takes_dtype(tmp_path / "vq", "module:Own", "bfloat16") and takes_dtype(tmp_path, "x:Y", "float32")


def test_a_code_is_the_signs_of_its_latent_highest_bit_first() -> None:
    codebook = tiny().quantize
    codes = torch.arange(32)[None]
    bits = codebook.bits(codes, (4, 8))
    assert bits.shape == (1, 5, 4, 8)
    assert torch.equal(codebook.codes(bits), codes)
    assert bits[0, :, 0, 6].tolist() == [-1, -1, 1, 1, -1]
    assert codebook.codes(torch.zeros(1, 5, 1, 1)).item() == 0
    assert codebook.codes(torch.tensor([0.1, -2, 0, 0, 3]).view(1, 5, 1, 1)).item() == 0b10001


def test_fresh_weights_are_keyed_and_leave_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    one, same, other = (build_magvit2(TINY, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one.encoder.conv_in.weight, same.encoder.conv_in.weight)
    assert not torch.equal(one.encoder.conv_in.weight, other.encoder.conv_in.weight)
    assert one.encoder.conv_in.weight.requires_grad


def test_a_saved_tokenizer_loads_as_it_was(tmp_path: Path) -> None:
    save_magvit2(tiny(), tmp_path / "vq")
    for loaded in (load_magvit2(tmp_path / "vq"), load_image_tokenizer(tmp_path / "vq")):
        assert torch.equal(loaded.encode(images(2, 16, 16)), tiny().encode(images(2, 16, 16)))
        assert (loaded.num_codes, loaded.grid) == (32, (4, 4))
    assert check_magvit2_folder(tmp_path / "vq") == check_image_tokenizer(tmp_path / "vq") == 32


def test_a_tokenizer_of_another_size_is_refused_from_its_header(tmp_path: Path) -> None:
    save_magvit2(tiny(), tmp_path / "vq")
    (tmp_path / "vq" / "config.json").write_text('{"_class_name": "MAGVITv2"}')
    with pytest.raises(ValueError, match=r"config\.json: .* missing .* misshapen"):
        check_magvit2_folder(tmp_path / "vq")
    with pytest.raises(ValueError, match=r"config\.json: .* missing .* misshapen"):
        load_magvit2(tmp_path / "vq")
