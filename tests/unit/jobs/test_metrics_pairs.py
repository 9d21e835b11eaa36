"""The metric `pairs` of the job `metrics`: partners by prompt and number, other sides, what is refused."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from genloop.data.image_reader import read_image
from genloop.data.images import encode_png
from genloop.job import run_command
from genloop.ledger import read_rows
from jobs import metrics
from tests.runs import refusal
from tests.worlds.image_folders import small_set, write_images

OF = "metrics.pairs.of=[mse,phash,delta_e,sharpness_ratio]"


def noisy(source: Path, folder: Path, strength: float) -> Path:
    """The same images with noise -> `folder`."""
    shutil.copytree(source, folder)
    for number, path in enumerate(sorted(folder.rglob("*.png"))):
        noise = np.random.default_rng(number).normal(0, strength, (24, 24, 3))
        path.write_bytes(encode_png(np.clip(read_image(path) + noise, 0, 255).astype(np.uint8)))
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("pairs")
    reference = write_images(place / "reference", small_set())
    strengths = {"images": 10, "baseline": 30, "floor": 60}
    return {"reference": reference} | {key: noisy(reference, place / key, sigma) for key, sigma in strengths.items()}


def metrics_of(word: str) -> list[str]:
    return word.partition("[")[2].rstrip("]").split(",")


def words(folders: dict[str, Path], *keys: str) -> list[str]:
    return [f"{key}={folders[key]}" for key in keys]


def test_every_side_is_compared_with_the_same_references(folders, tmp_path):
    given = [*words(folders, *folders), OF, f"out={tmp_path / 'run'}", "unit_size=7", "device=cpu"]
    assert run_command(metrics, given) == 0
    rows = list(read_rows(tmp_path / "run"))
    assert len(rows) == 24
    for row in rows:
        shown = read_image(folders["reference"] / row["image"]).astype(float)
        for side in ("images", "baseline", "floor"):
            error = ((read_image(folders[side] / row["image"]) - shown) ** 2).mean()
            assert row["scores"]["pairs"][side]["mse"] == pytest.approx(error)
    lines = json.loads((tmp_path / "run" / "summary.json").read_text())["metrics"]["pairs"]
    found = {line["name"]: line["value"] for line in lines}
    assert found["mse"] < found["mse, baseline"] < found["mse, floor"] < found["mse, shuffled"]
    assert len(lines) == 4 * 4
    table = json.loads((tmp_path / "run" / "pairs" / "table.json").read_text())
    assert [(one["over"], one["metric"]) for one in table] == [
        (over, metric) for over in ("baseline", "floor", "shuffled") for metric in metrics_of(OF)
    ]
    for one in table:
        if one["metric"] == "mse":
            over = "mse, " + one["over"]
            assert one["gain"]["difference"]["estimate"] == pytest.approx(found[over] - found["mse"])
            assert one["normalised"]["estimate"] == pytest.approx(1 - found["mse"] / found["mse, floor"])
        if one["over"] == "floor" and one["metric"] != "sharpness_ratio":
            assert one["gain"]["difference"]["low"] > 0 and one["p_holm"] < 0.01 and one["gain"]["effect"] == 1
    page = (tmp_path / "run" / "pairs" / "index.html").read_text()
    assert (
        page.count('class="pic') == 2 * 1 + (12 + 2 * 3) * 6
        and page.count("data:image/svg+xml") == 2
        and "<script" not in page
    )
    with (tmp_path / "run" / "pairs" / "table.csv").open(newline="") as file:
        assert [row["metric"] for row in csv.DictReader(file)] == [one["metric"] for one in table]
    assert (tmp_path / "run" / "pairs" / "table.tex").read_text().count(r"\\") == 1 + len(table)


def test_partners_are_found_by_prompt_wherever_they_lie(folders, tmp_path):
    moved = tmp_path / "moved"
    places = sorted(folders["reference"].iterdir())
    for number, place in enumerate(reversed(places)):
        shutil.copytree(place, moved / f"{number + 40:05d}")
    given = [*words(folders, "images"), OF, "device=cpu"]
    for name, reference in (("a", folders["reference"]), ("b", moved)):
        assert run_command(metrics, [*given, f"reference={reference}", f"out={tmp_path / name}"]) == 0
    assert list(read_rows(tmp_path / "a")) == list(read_rows(tmp_path / "b"))


def _lacking(place: Path) -> None:
    shutil.rmtree(place / "reference" / "00003")


def _larger(place: Path) -> None:
    path = place / "reference" / "00002" / "samples" / "0001.png"
    path.write_bytes(encode_png(np.zeros((32, 32, 3), dtype=np.uint8)))


def _broken(place: Path) -> None:
    (place / "reference" / "00002" / "samples" / "0001.png").write_bytes(b"no image")


def _single(place: Path) -> None:
    for path in sorted((place / "images").iterdir())[1:]:
        shutil.rmtree(path)
    (place / "images" / "00000" / "samples" / "0001.png").unlink()


@pytest.mark.parametrize(
    "spoil, extra, expected",
    [
        (_lacking, OF, ("reference: ", "2 of 24 images")),
        (_larger, OF, ("images: ", "00002/samples/0001.png", "24 x 24", "32 x 32", "metrics.pairs.size")),
        (_broken, OF, ("reference: ", "00002/samples/0001.png")),
        (_single, OF, ("images: ", "at least 2")),
        (None, "metrics.pairs={}", ("metrics.pairs.of", "ms_ssim", "176")),
        (None, "metrics.pairs.of=[sim]", ("metrics.pairs.of", "'ssim'")),
        (None, "metrics.fid.features=pixels", ("floor: ", "pairs")),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(folders, tmp_path, capsys, spoil, extra, expected):
    copies = {key: shutil.copytree(folders[key], tmp_path / key) for key in ("images", "reference", "floor")}
    if spoil is not None:
        spoil(tmp_path)
    error = refusal(metrics, [*words(copies, *copies), extra, f"out={tmp_path / 'run'}"], tmp_path, capsys)
    assert all(part in error for part in expected), error


def test_a_torn_image_of_the_reference_takes_its_pair_alone(folders, tmp_path):
    reference = shutil.copytree(folders["reference"], tmp_path / "reference")
    path = reference / "00002" / "samples" / "0001.png"
    path.write_bytes(path.read_bytes()[:-40])
    given = [*words(folders, "images"), OF, f"reference={reference}", f"out={tmp_path / 'run'}", "device=cpu"]
    assert run_command(metrics, given) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["unreadable"] == ["00002/samples/0001.png"]
    lost = next(row for row in read_rows(tmp_path / "run") if row["problem"])
    assert lost["problem"].startswith("reference 00002") and lost["scores"] == {}


def test_a_size_brings_images_of_two_sizes_together(folders, tmp_path):
    reference = shutil.copytree(folders["reference"], tmp_path / "reference")
    for path in reference.rglob("*.png"):
        path.write_bytes(encode_png(np.kron(read_image(path), np.ones((2, 2, 1), dtype=np.uint8))))
    given = [*words(folders, "images"), f"reference={reference}", f"out={tmp_path / 'run'}", "device=cpu"]
    assert run_command(metrics, [*given, OF, "metrics.pairs.size=24"]) == 0
    lines = json.loads((tmp_path / "run" / "summary.json").read_text())["metrics"]["pairs"]
    found = {line["name"]: line["value"] for line in lines}
    assert found["mse"] < found["mse, shuffled"] / 4
    table = json.loads((tmp_path / "run" / "pairs" / "table.json").read_text())
    assert {one["over"] for one in table} == {"shuffled"}
    assert all(0 < one["normalised"]["estimate"] < 1 for one in table if one["metric"] in ("mse", "phash"))
