"""`evaluate` on other people's folders: completeness, layouts, formats, a canary that stops it; nothing is lost."""

import json
import os
import shutil

import pytest
from PIL import Image

from geneval.canary.records import SHIPPED
from geneval.detectors.tables import DETECTORS
from genloop.config import read_yaml
from genloop.job import run_command
from genloop.ledger import read_rows
from jobs import evaluate
from tests.runs import refusal
from tests.worlds import slow_evaluate
from tests.worlds.image_folders import small_set, write_images


@pytest.fixture
def images(tmp_path):
    return write_images(tmp_path / "images", small_set())


def words(images, out, *more):
    return ["tiny", f"images={images}", f"out={out}", *more]


def run(images, out, *more):
    assert run_command(evaluate, words(images, out, *more)) == 0
    return out


def rows_of(out):
    return [(row["prompt_index"], row["sample"], row["correct"], row["details"]) for row in read_rows(out)]


def test_what_is_missing_is_an_error_before_work_and_said_when_that_is_asked_for(images, tmp_path, capsys):
    out = tmp_path / "run"
    (images / "00003" / "samples" / "0001.png").unlink()
    shutil.rmtree(images / "00007")
    error = refusal(evaluate, words(images, out, "expect.images_per_prompt=2"), tmp_path, capsys)
    assert "1 folder without exactly 2 images: 00003 has 1; expect.on_missing=report" in error
    named = "expect.prompts=configs/prompts/shapes_tiny/evaluation_metadata.jsonl"
    assert "1 expected prompt without a folder: " in refusal(evaluate, words(images, out, named), tmp_path, capsys)
    run(images, out, "expect.on_missing=report", "expect.images_per_prompt=2")
    assert "1 folder without exactly 2 images: 00003 has 1\n" in capsys.readouterr().out
    summary = json.loads((out / "summary.json").read_text())
    assert summary["completeness"]["wrong_numbers"] == [["00003", 1]]
    assert summary["completeness"]["complete"] is False
    run(images, out, named, "expect.on_missing=report")  # what is expected may change when the rows are there
    assert "1 expected prompt without a folder: " in capsys.readouterr().out


def test_images_that_the_exact_detector_was_not_made_for_are_refused(images, tmp_path, capsys):
    Image.new("RGB", (512, 300)).save(images / "00003" / "samples" / "0001.png")
    error = refusal(evaluate, words(images, tmp_path / "run"), tmp_path, capsys)
    assert f"{images / '00003/samples/0001.png'}: 512 x 300 pixels" in error and "up to 192 x 192" in error


def test_a_detector_that_knows_no_class_of_any_prompt_is_warned_of(images, tmp_path, capsys):
    line = '{"tag": "single_object", "include": [{"class": "bench", "count": 1}], "prompt": "a photo of a bench"}'
    for folder in images.iterdir():
        (folder / "metadata.jsonl").write_text(line)
    more = "unknown_classes=absent", "expect.on_missing=report"
    assert "unknown class" in refusal(evaluate, words(images, tmp_path / "run"), tmp_path, capsys)
    run(images, tmp_path / "run", *more)
    assert "warning: detector shapes knows none of the classes" in capsys.readouterr().err


def test_a_missing_task_is_an_error_unless_a_part_is_asked_for(images, tmp_path, capsys):
    for index in (4, 5):
        shutil.rmtree(images / f"{index:05d}")
    error = refusal(evaluate, words(images, tmp_path / "run"), tmp_path, capsys)
    assert error.startswith(f"genloop: {images}: no prompts of counting; expect.on_missing=report")
    run(images, tmp_path / "part", "limit=4")
    assert "overall is not comparable with six tasks" in capsys.readouterr().out


@pytest.mark.parametrize("what", ["a folder", "all folders"])
def test_folders_without_images(images, tmp_path, capsys, what):
    for folder in sorted(images.iterdir())[: 1 if what == "a folder" else None]:
        shutil.rmtree(folder / "samples")
    more = "expect.on_missing=report"
    line = "00000: no samples; expected "
    assert line in refusal(evaluate, words(images, tmp_path / "run"), tmp_path, capsys)
    if what == "all folders":
        assert line in refusal(evaluate, words(images, tmp_path / "run", more), tmp_path, capsys)
    else:
        assert len(rows_of(run(images, tmp_path / "run", more))) == 22


def test_lossless_webp_and_other_paddings_give_the_same_verdicts(images, tmp_path):
    base = rows_of(run(images, tmp_path / "base"))
    for folder in sorted(images.iterdir()):
        for path in sorted((folder / "samples").iterdir()):
            with Image.open(path) as image:
                image.save(path.with_name(f"{int(path.stem)}.webp"), lossless=True)
            path.unlink()
        folder.rename(images / str(int(folder.name)))
    assert rows_of(run(images, tmp_path / "webp")) == base


def test_one_image_a_prompt_beside_its_metadata(images, tmp_path):
    base = [row for row in rows_of(run(images, tmp_path / "base")) if row[1] == 0]
    for folder in images.iterdir():
        (folder / "samples" / "0000.png").rename(folder / "final.png")
        shutil.rmtree(folder / "samples")
    out = run(images, tmp_path / "final", "layout=final")
    assert rows_of(out) == base
    assert next(read_rows(out))["image"] == "00000/final.png"


@pytest.mark.parametrize("batch", [1, 5, 100])
def test_how_images_are_batched_and_decoded_changes_nothing(images, tmp_path, batch):
    (images / "00002" / "samples" / "0001.png").write_bytes(b"torn")
    base = list(read_rows(run(images, tmp_path / "base")))
    out = run(images, tmp_path / "run", f"images_per_batch={batch}", f"decoders={batch}")
    assert list(read_rows(out)) == base
    assert [row["image"] for row in base if row["size"] is None] == ["00002/samples/0001.png"]


def test_a_folder_of_broken_images_only_is_judged_wrong_to_the_end(images, tmp_path):
    for path in images.rglob("*.png"):
        path.write_bytes(b"torn")
    rows = list(read_rows(run(images, tmp_path / "run")))
    assert len(rows) == 24 and {(row["correct"], row["reason"]) for row in rows} == {
        (False, "unreadable: not a PNG, JPEG or WebP image")
    }


@pytest.mark.parametrize("given", ["./images", "images/", ".//images"])
def test_reference_rows_name_images_as_they_were_given(images, tmp_path, monkeypatch, given):
    monkeypatch.chdir(tmp_path)
    path = images / "00000" / "metadata.jsonl"
    row = json.loads(path.read_text()) | {"prompt": "  a café/bar ", "index": 0}
    path.write_text(json.dumps(row))
    run(given, tmp_path / "run", "format=reference")
    first = (tmp_path / "run" / "results.jsonl").read_bytes().split(b"\n")[0]
    place = os.path.join(given, "00000", "samples", "0000.png").replace("/", "\\/")  # noqa: PTH118 - as GenEval joins
    assert first.startswith(f'{{"filename":"{place}","tag":"single_object"'.encode())
    assert b'"prompt":"  a caf\\u00e9\\/bar ","correct":' in first
    assert json.loads(json.loads(first)["metadata"]) == row
    assert b"caf\\\\u00e9\\/bar" in first.partition(b'"metadata":')[2]


def test_the_canary_runs_alone_without_images(tmp_path, capsys):
    assert run_command(evaluate, ["shapes", f"out={tmp_path / 'run'}", "canary=only"]) == 0
    assert capsys.readouterr().out == "detector shapes: as recorded\ncolors shapes: as recorded\n"
    found = json.loads((tmp_path / "run" / "canary.json").read_text())
    records = read_yaml(SHIPPED)["records"]
    assert {name: found[name]["seen"] for name in found} == {record["part"]: record["seen"] for record in records}
    assert run_command(evaluate, ["shapes", f"out={tmp_path / 'noted'}", "canary=record"]) == 0
    assert "has no weights to note it for" in capsys.readouterr().out
    assert "images: needs a value, unless canary=only" in refusal(
        evaluate, ["shapes", f"out={tmp_path / 'none'}"], tmp_path, capsys
    )


class Blind(slow_evaluate.Slow):
    """Makes a detector that finds shapes on dark images only."""

    @classmethod
    def load(cls, options, resolve, device):
        """Nothing to load."""
        return Dimmed(0.0)


class Dimmed(slow_evaluate.SlowDetector):
    """As the exact detector on half as bright images."""

    def detect(self, images):
        """Images (H, W, 3) uint8 -> detections."""
        return super().detect([image // 2 for image in images])


def test_a_detector_that_does_not_answer_as_recorded_stops_the_run_before_any_image(
    images, tmp_path, capsys, monkeypatch
):
    monkeypatch.setitem(DETECTORS, "shapes", f"{__name__}:Blind")
    out = tmp_path / "run"
    with pytest.raises(SystemExit) as stopped:
        run_command(evaluate, words(images, out))
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error.count("genloop: canary: detector shapes ") == 1 and "Traceback" not in error
    assert "likely" in error and "recorded" in error
    assert list(read_rows(out)) == [] and not list((out / "leases").iterdir()) and not list((out / "failed").iterdir())
    run(images, out, "canary=off")
    assert json.loads((out / "card.json").read_text())["canary"]["detector"] == "not run"
