"""The comparison in the folders of the published tool, and drawn again by `genloop report`."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest

from genloop.data.image_reader import read_image
from genloop.job import run_command
from genloop.report import write_page
from genloop.report.images.published import FOLDERS
from jobs import generate, metrics
from tests.runs import contents, refusal
from tests.unit.report.test_page import check_frame

PAIRED = ["metrics.pairs.of=[mse,ssim,delta_e,phash]", "device=cpu"]


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("published")
    drawn = ["limit=4", "images_per_prompt=2", "sampling.steps=2"]
    for name, seed, preset in (("student", 0, "tiny"), ("teacher", 1, "tiny_shards")):
        assert run_command(generate, [preset, *drawn, f"seed={seed}", f"out={root / name}"]) == 0
    words = [f"images={root / 'student'}", f"reference={root / 'teacher'}", f"out={root / 'run'}", "format=published"]
    assert run_command(metrics, [*words, *PAIRED]) == 0
    return root


def test_every_folder_holds_what_its_name_says(compared: Path) -> None:
    found = compared / "run" / "pairs" / "published"
    assert sorted(path.name for path in found.iterdir()) == sorted(FOLDERS)
    names = [f"{prompt:05d}_{number:04d}" for prompt in range(4) for number in range(2)]
    for part in ("sdxl_images", "weakmodel_images"):
        assert sorted(path.name for path in (found / part).iterdir()) == [f"{name}.png" for name in names]
    image, reference = (read_image(found / part / f"{names[3]}.png") for part in ("weakmodel_images", "sdxl_images"))
    assert np.array_equal(image, read_image(compared / "student" / "images" / "00001" / "samples" / "0001.png"))
    pair = read_image(found / "comparison_output" / f"{names[3]}.png")
    assert np.array_equal(pair[:, :24], reference) and np.array_equal(pair[:, 28:52], image)
    with (found / "metrics" / "scores.csv").open(newline="") as file:
        scores = list(csv.DictReader(file))
    mse = ((image.astype(float) - reference) ** 2).mean()
    assert len(scores) == 2 * 8 and float(scores[6]["mse"]) == pytest.approx(mse) and scores[6]["side"] == "images"
    starts = {"research_paper_materials/radar.pdf": b"%PDF", "visualization/distributions.png": b"\x89PNG"}
    starts |= {
        "research_paper_materials/table.tex": b"\\begin{tabular}",
        "comparison_output/index.html": b"<!doctype",
    }
    starts |= {"checkpoints/images.json": b"{\n", "research_comparisons/table.md": b"| metric"}
    for name, start in starts.items():
        assert (found / name).read_bytes().startswith(start), name


def test_the_report_draws_the_same_page_and_tables_again(compared: Path, tmp_path: Path) -> None:
    page = write_page([compared / "run"], tmp_path)
    assert page == tmp_path / "index.html"
    check_frame(page, provenance=False)
    assert contents(tmp_path, [""]) == contents(compared / "run" / "pairs", [""])


def test_a_run_without_pairs_has_the_general_page(compared: Path, tmp_path: Path) -> None:
    words = [f"images={compared / 'student'}", "metrics.statistics.features=pixels", f"out={tmp_path / 'run'}"]
    assert run_command(metrics, [*words, "device=cpu"]) == 0
    page = write_page([tmp_path / "run"], tmp_path / "page")
    check_frame(page)
    assert "Measured images: run" in page.read_text()


@pytest.mark.parametrize("key", ["images", "reference", "floor", "baseline"])
@pytest.mark.parametrize("damage", ["torn", "no tar", "a changed image"])
def test_a_damaged_shard_of_any_side_is_one_line(
    compared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], key: str, damage: str
) -> None:
    copy = shutil.copytree(compared / "teacher" / "shards", tmp_path / "shards")
    shard = copy / "00000.tar"
    data = bytearray(shard.read_bytes())
    data[data.index(b"IDAT") + 8] ^= 255
    shard.write_bytes({"torn": data[:2000], "no tar": b"no tar at all", "a changed image": data}[damage])
    sides = dict.fromkeys(("images", "reference"), compared / "student") | {key: copy}
    words = [f"{name}={folder}" for name, folder in sides.items()]
    assert "00000.tar" in refusal(metrics, [*words, *PAIRED, f"out={tmp_path / 'run'}"], tmp_path, capsys)
