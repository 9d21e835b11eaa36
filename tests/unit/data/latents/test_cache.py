"""Entries are found by what they were computed from, also when shards, captions, crops or encoders change."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from genloop.data.latents import cache
from genloop.data.latents.buckets import bucket_sizes
from genloop.data.latents.cache import EncodedCache, latent_key, text_key
from genloop.data.latents.examples import CaptionedImages
from genloop.data.shards import Shards, index_path
from genloop.distributed import World
from tests.worlds.captioned_images import fields_of, write_images


def images(folder: Path, num: int = 3, resolution: int = 24, **more: dict) -> CaptionedImages:
    shards = Shards(write_images(folder, [(40, 40)] * num, **more))
    return CaptionedImages(shards, bucket_sizes(resolution, 4))


def entry(key: str) -> dict[str, np.ndarray]:
    return {"mean": np.full((2, 3), int(key[:6], 16), dtype=np.float32)}


def test_another_image_crop_vae_or_kept_part_gives_another_latent_and_a_caption_another_text(tmp_path: Path) -> None:
    before = images(tmp_path / "a")
    smaller = images(tmp_path / "b", resolution=16)
    drawn = images(tmp_path / "c", other={1: fields_of(7, (40, 40), "webp") | {"txt": b"picture 1"}})
    told = images(tmp_path / "d", other={1: fields_of(1, (40, 40), "webp") | {"txt": b"something else"}})
    keys = {
        latent_key(before[1], "vae", "mode"),
        latent_key(before[1], "vae", "sample"),
        latent_key(before[1], "another", "mode"),
        latent_key(smaller[1], "vae", "mode"),
        latent_key(drawn[1], "vae", "mode"),
        latent_key(dataclasses.replace(before[1], key="x"), "vae", "mode"),
        text_key(before[1].caption, "encoder"),
        text_key(before[1].caption, "another"),
        text_key(told[1].caption, "encoder"),
        text_key(None, "encoder"),
    }
    assert len(keys) == 10
    assert latent_key(told[1], "vae", "mode") == latent_key(before[1], "vae", "mode")
    assert latent_key(told[0], "vae", "mode") == latent_key(before[0], "vae", "mode")


def test_a_shuffled_list_finds_the_same_entries_and_computes_each_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "CHUNK", 2)
    keys = [text_key(str(number), "") for number in range(5)]
    computed: list[str] = []

    def make(key: str) -> dict[str, np.ndarray]:
        computed.append(key)
        return entry(key)

    for rank in (0, 1):  # shares of two ranks
        EncodedCache(tmp_path, "texts", keys).fill(make, World(rank, 2))
    assert sorted(computed) == sorted(keys)
    found = EncodedCache(tmp_path, "texts", [*keys, keys[0]])
    found.fill(make, World())
    found.open()
    assert len(computed) == len(keys)
    for key in keys[::-1]:
        assert (found.read(key)["mean"] == entry(key)["mean"]).all()


def test_a_shard_without_its_index_is_computed_again_and_a_foreign_one_is_refused(tmp_path: Path) -> None:
    keys, others = [text_key(name, "") for name in "ab"], [text_key(name, "") for name in "cd"]
    one, other = EncodedCache(tmp_path, "texts", keys), EncodedCache(tmp_path, "texts", others)
    for held in (one, other):
        held.fill(entry, World())
    whole = one.files[0].read_bytes()
    one.files[0].write_bytes(whole[:700])
    index_path(one.files[0]).unlink()
    one.fill(entry, World())
    assert one.files[0].read_bytes() == whole
    for file in (one.files[0], index_path(one.files[0]), one.files[0].with_suffix(".index.npy")):
        file.write_bytes((tmp_path / file.name.replace(one.files[0].stem, other.files[0].stem)).read_bytes())
    one.open()
    with pytest.raises(ValueError, match=keys[0]):
        one.read(keys[0])
