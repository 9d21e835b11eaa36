"""The shape of a MAGVIT-v2 checkpoint (Yu et al. 2024, as trained for Show-o). No torch.

The public config.json names the class only: the defaults here are its sizes. Smaller models write theirs as keys.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from genloop.checkpoint import Shape, compare_manifest, read_shapes
from genloop.models.common.dims import read_dims
from genloop.reading import read_json_object

Conv = tuple[str, int, int, int]  # name, channels in, channels out, kernel size


@dataclass(frozen=True, slots=True)
class MagvitConfig:
    """Sizes; the levels of `*_mult` and `*_blocks` go from the highest resolution to the lowest."""

    num_bits: int = 13
    width: int = 128
    encoder_mult: tuple[int, ...] = (1, 2, 2, 4, 4)
    encoder_blocks: tuple[int, ...] = (4, 3, 4, 3, 4)
    decoder_mult: tuple[int, ...] = (1, 1, 2, 2, 4)
    decoder_blocks: tuple[int, ...] = (4, 4, 3, 4, 3)
    num_groups: int = 32
    resolution: int = 256  # pixels on a side of the training images

    @property
    def num_codes(self) -> int:
        return 2**self.num_bits

    @property
    def factor(self) -> int:
        """Pixels on a side of one token."""
        return 2 ** (len(self.encoder_mult) - 1)

    @property
    def grid(self) -> tuple[int, int]:
        return self.resolution // self.factor, self.resolution // self.factor

    def to_json(self) -> dict[str, Any]:
        """config.json: the public keys, and the sizes where they are not the public ones."""
        public = {"_class_name": "MAGVITv2", "_diffusers_version": "0.30.1"}
        sizes, default = asdict(self), asdict(MagvitConfig())
        return public | {key: value for key, value in sizes.items() if value != default[key]}


def read_magvit2_config(folder: Path) -> MagvitConfig:
    """config.json of a checkpoint folder; keys that it lacks are the public model's."""
    path = folder / "config.json"
    config: MagvitConfig = read_dims(MagvitConfig(), read_json_object(path), path)
    levels = {len(getattr(config, f"{side}_{what}")) for side in ("encoder", "decoder") for what in ("mult", "blocks")}
    if len(levels) != 1:
        raise ValueError(f"{path}: encoder_mult, encoder_blocks, decoder_mult and decoder_blocks differ in length")
    if config.width % config.num_groups:
        raise ValueError(f"{path}: width {config.width} is not a multiple of num_groups {config.num_groups}")
    if config.resolution % config.factor:
        raise ValueError(f"{path}: resolution {config.resolution} is not a multiple of {config.factor}")
    return config


def magvit2_manifest(config: MagvitConfig) -> dict[str, Shape]:
    """{key: shape} of every tensor of a MAGVIT-v2 checkpoint."""
    manifest: dict[str, Shape] = {}
    for side in (_encoder(config), _decoder(config)):
        for name, inner, outer, kernel in side:
            manifest[f"{name}.weight"] = (outer, inner, kernel, kernel) if kernel else (outer,)
            manifest[f"{name}.bias"] = (outer,)
    manifest["quantize.embedding"] = (config.num_codes, config.num_bits)
    manifest["quantize.power_vals"] = (config.num_bits,)
    return manifest


def decode_flops(config: MagvitConfig) -> float:
    """Operations (2 a multiply-add) of decoding one image of the training size; norms and activations not counted."""
    area = config.grid[0] * config.grid[1]
    width = config.width * config.decoder_mult[-1]
    flops = 4.0 * width * area**2  # the attention of the middle; its projections are below
    for name, inner, outer, kernel in _decoder(config):
        if name.endswith("upsample.conv"):
            area *= 4
        flops += 2.0 * inner * outer * kernel**2 * area
    return flops


def check_magvit2_folder(folder: Path) -> int:
    """Refuse a folder whose files are torn or do not fit its config.json -> its number of codes; reads headers only."""
    shapes = read_shapes(folder)
    config = read_magvit2_config(folder)
    compare_manifest(magvit2_manifest(config), shapes, folder)
    return config.num_codes


def _encoder(config: MagvitConfig) -> Iterator[Conv]:
    width, last = config.width, len(config.encoder_mult) - 1
    yield "encoder.conv_in", 3, width, 3
    inner = width
    for level, (mult, blocks) in enumerate(zip(config.encoder_mult, config.encoder_blocks)):
        for block in range(blocks):
            yield from _block(f"encoder.down.{level}.block.{block}", inner, width * mult)
            inner = width * mult
        if level < last:
            yield f"encoder.down.{level}.downsample.conv", inner, inner, 3
    yield from _middle("encoder.mid", inner)
    yield "encoder.norm_out", inner, inner, 0
    yield "encoder.conv_out", inner, config.num_bits, 3
    yield "encoder.quant_conv", config.num_bits, config.num_bits, 1


def _decoder(config: MagvitConfig) -> Iterator[Conv]:
    inner = config.width * config.decoder_mult[-1]
    yield "decoder.post_quant_conv", config.num_bits, config.num_bits, 1
    yield "decoder.conv_in", config.num_bits, inner, 3
    yield from _middle("decoder.mid", inner)
    for level in reversed(range(len(config.decoder_mult))):
        outer = config.width * config.decoder_mult[level]
        for block in range(config.decoder_blocks[level]):
            yield from _block(f"decoder.up.{level}.block.{block}", inner, outer)
            inner = outer
        if level:
            yield f"decoder.up.{level}.upsample.conv", inner, inner, 3
    yield "decoder.norm_out", inner, inner, 0
    yield "decoder.conv_out", inner, 3, 3


def _block(name: str, inner: int, outer: int) -> Iterator[Conv]:
    yield f"{name}.norm1", inner, inner, 0
    yield f"{name}.conv1", inner, outer, 3
    yield f"{name}.norm2", outer, outer, 0
    yield f"{name}.conv2", outer, outer, 3
    if inner != outer:
        yield f"{name}.nin_shortcut", inner, outer, 1


def _middle(name: str, width: int) -> Iterator[Conv]:
    yield from _block(f"{name}.block_1", width, width)
    yield f"{name}.attn_1.norm", width, width, 0
    for part in ("q", "k", "v", "proj_out"):
        yield f"{name}.attn_1.{part}", width, width, 1
    yield from _block(f"{name}.block_2", width, width)
