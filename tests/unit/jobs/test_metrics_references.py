"""The job `metrics`: files of statistics that are no reference, or not for these features, are refused in one line."""

import contextlib
import io
from pathlib import Path

import numpy as np
import pytest

from genloop.data.shards import npy_bytes
from genloop.job import run_command
from genloop.metrics.features import CachedExtractor, PixelExtractor, PixelOptions
from genloop.metrics.statistics import read_statistics
from genloop.rewards.build import check_judge
from genloop.rewards.settings import JudgeSettings
from jobs import metrics
from tests.runs import refusal
from tests.worlds.image_folders import small_set, write_images

FID = "metrics.fid.features=pixels"


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("metrics") / "images", small_set(), samples=3)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "holds neither features and clusters nor mu"),
        ({"mu": np.array(["a"] * 4), "sigma": np.eye(4)}, "mu holds no numbers"),
        ({"mu": np.full(4, np.nan), "sigma": np.eye(4)}, "mu holds values that are no numbers"),
        ({"mu": np.zeros(4), "sigma": np.diag([1, 1, 1, -0.1])}, "variance is -0.1, below 0"),
        ({"mu": np.zeros(2), "sigma": np.array([[1.0, 2.0], [2.0, 1.0]])}, "variance is -1, below 0"),
        ({"mu": np.zeros(2), "sigma": np.array([[1.0, 0.2], [0.1, 1.0]])}, "not symmetric"),
        ({"features": np.full((3, 4), np.inf), "clusters": np.arange(3)}, "features holds values that are no numbers"),
        ({"mu": np.zeros((1, 4)), "sigma": np.eye(4)}, "holds neither features and clusters nor mu"),
        ({"features": np.zeros(9), "clusters": np.zeros(9)}, "features must be (N, D) and clusters (N,)"),
        ({"features": np.zeros((0, 4)), "clusters": np.zeros(0)}, "features must be (N, D) and clusters (N,)"),
        ({"features": np.zeros((3, 4)), "clusters": np.zeros(2)}, "features must be (N, D) and clusters (N,)"),
    ],
)
def test_references_that_hold_no_statistics_are_refused(images, tmp_path, capsys, arrays, message):
    np.savez(tmp_path / "reference.npz", **arrays)
    words = [f"images={images}", FID, f"reference={tmp_path / 'reference.npz'}", f"out={tmp_path / 'out'}"]
    line = refusal(metrics, words, tmp_path, capsys)
    assert f"{tmp_path / 'reference.npz'}: " in line and message in line


def test_a_torn_reference_is_refused(images, tmp_path, capsys):
    np.savez(tmp_path / "reference.npz", mu=np.zeros(64), sigma=np.eye(64))
    whole = (tmp_path / "reference.npz").read_bytes()
    for content in (whole[:-300], whole[:20], b"", npy_bytes(np.zeros(3))):
        (tmp_path / "reference.npz").write_bytes(content)
        words = [f"images={images}", FID, f"reference={tmp_path / 'reference.npz'}", f"out={tmp_path / 'out'}"]
        assert "not a file of statistics" in refusal(metrics, words, tmp_path, capsys)


@pytest.mark.parametrize(
    "arrays",
    [{"mu": np.zeros(9), "sigma": np.eye(9)}, {"features": np.zeros((5, 9)), "clusters": np.arange(5)}],
    ids=["moments", "features"],
)
def test_a_reference_of_another_size_is_refused_before_an_image_is_measured(images, tmp_path, capsys, arrays):
    np.savez(tmp_path / "reference.npz", **arrays)
    words = [f"images={images}", FID, f"reference={tmp_path / 'reference.npz'}", f"out={tmp_path / 'out'}"]
    with pytest.raises(SystemExit) as stopped:
        run_command(metrics, words)
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and error.count("\n") == 1
    assert "reference.npz is of 9 numbers an image, the features of fid of 64" in error
    assert not list((tmp_path / "out" / "rows").iterdir())


def test_a_covariance_of_fewer_images_than_numbers_is_one(images, tmp_path):
    rows = np.random.default_rng(0).normal(size=(5, 64)).astype(np.float32)  # rank 4, rounded
    np.savez(tmp_path / "few.npz", mu=rows.mean(axis=0), sigma=np.cov(rows.T).astype(np.float32))
    words = [f"images={images}", FID, f"reference={tmp_path / 'few.npz'}", f"out={tmp_path / 'run'}"]
    assert run_command(metrics, words) == 0


@pytest.mark.parametrize("is_link", [False, True], ids=["file", "broken link"])
def test_a_feature_cache_is_a_folder(images, tmp_path, capsys, is_link):
    cache = tmp_path / "cache"
    cache.symlink_to(tmp_path / "nothing") if is_link else cache.write_text("x")
    words = [
        f"images={images}",
        "metrics.statistics.features=pixels",
        f"cache={cache}",
        f"out={tmp_path / 'x'}",
    ]
    assert f"cache: {cache} is a file or a broken link" in refusal(metrics, words, tmp_path, capsys)
    with pytest.raises(ValueError, match=r"^judge\.cache: "):
        check_judge(JudgeSettings(cache=cache), Path)


@pytest.mark.parametrize("damage", ["torn", "folder", "of fewer images", "no numbers", "a zip", "a torn zip", "huge"])
def test_damaged_features_of_a_cache_are_measured_again(tmp_path, caplog, damage):
    pictures = [np.full((8, 8, 3), shade, dtype=np.uint8) for shade in (0, 90)]
    extractor = CachedExtractor(PixelExtractor(PixelOptions()), tmp_path, "mark")
    features = extractor.embed(pictures)
    (kept,) = tmp_path.iterdir()
    if damage == "folder":
        kept.unlink()
        kept.mkdir()
    else:
        whole, zipped = npy_bytes(features), io.BytesIO()
        np.savez(zipped, features=features)
        content = {
            "torn": whole[:-9],
            "of fewer images": npy_bytes(features[:1]),
            "no numbers": npy_bytes(features * np.inf),
            "a zip": zipped.getvalue(),
            "a torn zip": zipped.getvalue()[:40],
            "huge": whole.replace(b"(2, 64), }" + b" " * 14, b"(" + b"9" * 15 + b", 64), }"),
        }
        assert len(set(content.values()) | {whole}) == len(content) + 1
        kept.write_bytes(content[damage])
    assert np.array_equal(extractor.embed(pictures), features) and "measured again" in caplog.text


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_no_damage_to_a_reference_is_more_than_one_line(tmp_path, write):
    write(tmp_path / "whole.npz", mu=np.zeros(9), sigma=np.eye(9))
    data, refused = (tmp_path / "whole.npz").read_bytes(), 0
    for place in range(len(data)):
        damaged = data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :]
        (tmp_path / "damaged.npz").write_bytes(damaged)
        with contextlib.suppress(ValueError):
            read_statistics(tmp_path / "damaged.npz", "mark")
            refused -= 1
        refused += 1
    assert refused > len(data) / 4
