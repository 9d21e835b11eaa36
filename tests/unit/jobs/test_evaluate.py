"""evaluate: rows and summary depend on images and options alone; bad input is refused, broken images are counted."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from genloop.data.masks import decode_mask
from genloop.distributed import StopRequested, World
from genloop.job import parse, prepare, run_command
from genloop.ledger import finished, read_rows
from jobs import evaluate
from tests.runs import contents, refusal, start
from tests.worlds.image_folders import small_set, write_images

RESULTS = ("summary.json", "summary.txt")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """12 prompts, 2 samples each, 6 of them wrong."""
    return write_images(tmp_path_factory.mktemp("generated") / "images", small_set())


@pytest.fixture
def own_images(tmp_path):
    """As `images`, for tests that break something."""
    return write_images(tmp_path / "images", small_set())


def words(images: Path, out: Path, *more: str) -> list[str]:
    return ["tiny", f"images={images}", f"out={out}", *more]


def run(images: Path, out: Path, *more: str) -> Path:
    assert run_command(evaluate, words(images, out, *more)) == 0
    return out


def results(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in RESULTS}


def refused(images: Path, out: Path, capsys, *more: str) -> str:
    """The one line of a run that is refused before anything is written."""
    return refusal(evaluate, words(images, out, *more), out.parent, capsys)


def test_rows_hold_the_verdict_of_every_image_in_order(images, tmp_path):
    rows = list(read_rows(run(images, tmp_path / "run")))
    assert [(row["prompt_index"], row["sample"]) for row in rows] == [(i, k) for i in range(12) for k in range(2)]
    assert [row["correct"] for row in rows] == [not (i % 2 and k % 2) for i in range(12) for k in range(2)]
    for row, prompt in zip(rows[::2], small_set()):
        assert (row["prompt"], row["tag"], row["metadata"]) == (prompt.text, prompt.tag, prompt.metadata())
        assert (images / row["image"]).is_file()
        assert row["reason"] == ""
        assert all(len(box) == 5 for boxes in row["details"].values() for box in boxes)
    assert rows[3]["reason"] and rows[3]["details"] == {}


def test_the_summary_is_written_and_printed(images, tmp_path, capsys):
    out = run(images, tmp_path / "run")
    table = capsys.readouterr().out
    assert table == (out / "summary.txt").read_text()
    assert re.search(r"^overall +75\.0% .* 18 +24 +12$", table, re.M)
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["num_images"], summary["num_correct"], summary["num_prompts"]) == (24, 18, 12)
    assert [task["tag"] for task in summary["tasks"]] == list(dict.fromkeys(p.tag for p in small_set()))
    assert summary["missing_tasks"] == summary["unreadable"] == []


def test_a_finished_run_prints_its_summary_again_and_changes_nothing(images, tmp_path, capsys):
    out = run(images, tmp_path / "run")
    before, table = (contents(out), results(out)), capsys.readouterr().out
    run(images, out)
    assert (contents(out), results(out)) == before
    assert capsys.readouterr().out == table


def test_format_reference_gives_the_references_summary_and_rows(images, tmp_path, capsys):
    out = run(images, tmp_path / "run")
    capsys.readouterr()
    run(images, out, "format=reference")  # a launch setting: the finished rows are used
    printed = capsys.readouterr().out
    assert printed.startswith("Summary\n=======\nTotal images: 24\nTotal prompts: 12\n% correct images: 75.00%\n")
    assert printed == (out / "summary.txt").read_text()
    lines = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert list(lines[0]) == ["filename", "tag", "prompt", "correct", "reason", "metadata", "details"]
    assert lines[0]["filename"] == f"{images}/00000/samples/0000.png"
    assert json.loads(lines[0]["metadata"]) == small_set()[0].metadata()


def test_masks_of_the_prompts_classes_are_kept_and_nothing_else_changes(own_images, tmp_path, capsys):
    (own_images / "00003" / "samples" / "0000.png").write_bytes(b"")
    plain, masked = (run(own_images, tmp_path / name, f"with_masks={name}") for name in ("false", "true"))
    assert results(plain) == results(masked)
    assert "masks" not in next(read_rows(plain))
    rows = list(read_rows(masked))
    assert [{key: row[key] for key in row if key != "masks"} for row in rows] == list(read_rows(plain))
    for row in rows:
        asked = {clause["class"] for part in ("include", "exclude") for clause in row["metadata"].get(part, ())}
        assert set(row["masks"]) == asked & set(row["details"])
        for name, texts in row["masks"].items():
            decoded = [decode_mask(text, *row["size"][::-1]) for text in texts]
            assert [mask.sum() for mask in decoded] == row["areas"][name]
            boxes = [[x.min(), y.min(), x.max() + 1, y.max() + 1] for y, x in map(np.nonzero, decoded)]
            assert boxes == [box[:4] for box in row["details"][name]]
    assert sum(len(row["masks"]) for row in rows) > 12
    for place in (plain, masked):
        run(own_images, place, f"with_masks={place.name}", "format=reference")
    assert (plain / "results.jsonl").read_bytes() == (masked / "results.jsonl").read_bytes()
    assert results(plain) == results(masked)


@pytest.mark.parametrize("unit_size", [1, 5, 100])
def test_the_cut_into_units_changes_nothing(images, tmp_path, unit_size):
    base, other = run(images, tmp_path / "base"), run(images, tmp_path / "other", f"unit_size={unit_size}")
    assert list(read_rows(base)) == list(read_rows(other))
    assert results(base) == results(other)


def test_workers_that_share_a_run_give_the_same_bytes(images, tmp_path):
    base = run(images, tmp_path / "base", "unit_size=2")
    shared = tmp_path / "shared"
    workers = [start("evaluate", *words(images, shared, "unit_size=2"), rank=rank, world_size=3) for rank in range(3)]
    outputs = [worker.communicate(timeout=300) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0, 0], outputs
    assert (contents(shared), results(shared)) == (contents(base), results(base))
    assert any((shared / "summary.txt").read_text() == printed for printed, _ in outputs)


def test_an_unfinished_run_has_no_summary_and_goes_on(images, tmp_path):
    base, out = run(images, tmp_path / "base", "unit_size=4"), tmp_path / "run"
    config = parse(evaluate, words(images, out, "unit_size=4"))
    checked = prepare(evaluate, config).checked
    (out / "rows").mkdir()
    for name in ("00001", "00004"):
        shutil.copy(base / "rows" / f"{name}.jsonl", out / "rows")
    world = World()
    world.request_stop()
    with pytest.raises(StopRequested):
        evaluate.main(config, world, checked)
    assert finished(out) == {"00001", "00004"}
    assert not (out / "summary.json").exists()
    run(images, out, "unit_size=4")
    assert (contents(out), results(out)) == (contents(base), results(base))


def test_limit_takes_whole_prompt_folders(images, tmp_path):
    rows = list(read_rows(run(images, tmp_path / "run", "limit=3")))
    assert [row["prompt_index"] for row in rows] == [0, 0, 1, 1, 2, 2]


def test_stricter_options_change_the_verdicts(images, tmp_path):
    rows = list(read_rows(run(images, tmp_path / "run", "options.max_objects=0")))
    assert not any(row["correct"] for row in rows)


def test_an_image_that_does_not_decode_counts_as_wrong_and_is_listed(own_images, tmp_path, capsys):
    broken = own_images / "00004" / "samples" / "0001.png"
    broken.write_bytes(broken.read_bytes()[:60])
    (own_images / "00005" / "samples" / "0000.png").write_bytes(b"")
    out = run(own_images, tmp_path / "run")
    assert "2 images could not be read and counted as wrong: 00004/samples/0001.png, 00005/" in capsys.readouterr().out
    rows = {row["image"]: row for row in read_rows(out)}
    assert len(rows) == 24
    assert rows["00005/samples/0000.png"]["reason"] == "unreadable: not a PNG, JPEG or WebP image"
    assert rows["00004/samples/0001.png"]["reason"].startswith("unreadable: ")
    assert not rows["00004/samples/0001.png"]["correct"]
    assert rows["00004/samples/0000.png"]["correct"]


def test_a_run_folder_stands_for_its_images(own_images, tmp_path):
    (own_images.parent / "run.json").write_text("{}")
    run(own_images.parent, tmp_path / "a")
    run(own_images, tmp_path / "b")
    assert results(tmp_path / "a") == results(tmp_path / "b")
    assert json.loads((tmp_path / "a" / "run.json").read_text()) == json.loads(
        (tmp_path / "b" / "run.json").read_text()
    )


def test_the_place_of_the_images_does_not_matter_but_their_content_does(own_images, tmp_path, capsys):
    out = run(own_images, tmp_path / "run")
    moved = own_images.rename(tmp_path / "moved")
    run(moved, out)
    (moved / "00000" / "samples" / "0001.png").write_bytes((moved / "00001/samples/0001.png").read_bytes())
    assert "another content of `images`" in refused(moved, out, capsys)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["detector=shape"], "unknown detector 'shape'; did you mean 'shapes'?"),
        (["colors=shape"], "unknown colour classifier 'shape'; did you mean 'shapes'?"),
        (["canary=on"], "canary: input should be 'check', 'off', 'only' or 'record', found 'on'"),
        (["layout=flat"], "layout: input should be 'samples' or 'final', found 'flat'"),
        (["expect.images_per_prompt=0"], "expect.images_per_prompt: "),
        (["expect.prompts=genevall"], "expect.prompts: genevall: no such file; `geneval` stands for the published"),
        (["options.treshold=0.5"], "options.treshold: unknown key; did you mean 'threshold'?"),
        (["options.threshold=2"], "options.threshold: input should be less than or equal to 1, found 2"),
        (["options.max_objects=two"], "options.max_objects: "),
        (["format=pandas"], "format: input should be 'genloop' or 'reference', found 'pandas'"),
        (["limit=0"], "limit: input should be greater than or equal to 1, found 0"),
        (["unit_size=0"], "unit_size: "),
    ],
)
def test_bad_settings_are_refused(images, tmp_path, capsys, more, message):
    assert message in refused(images, tmp_path / "run", capsys, *more)


def test_folders_that_are_not_in_genevals_layout_are_refused(own_images, tmp_path, capsys):
    out = tmp_path / "run"
    assert "nowhere: no such folder" in refused(tmp_path / "nowhere", out, capsys)
    assert "no prompt folders" in refused(own_images / "00000" / "samples", out, capsys)
    folder = own_images / "00003"
    (folder / "samples" / "00001.png").write_bytes(b"")
    assert "00001.png and 0001.png are the same number" in refused(own_images, out, capsys)
    (folder / "samples" / "00001.png").rename(folder / "samples" / "1.webp")
    assert "0001.png and 1.webp are the same number" in refused(own_images, out, capsys)
    (folder / "samples" / "1.webp").rename(folder / "samples" / "2.gif")
    assert "2.gif: not a sample that is read here" in refused(own_images, out, capsys)
    (own_images / "notes").mkdir()
    assert "notes: prompt folders are named by numbers" in refused(own_images, out, capsys)
    (own_images / "notes").rename(own_images / ".notes")
    assert "00003: is the folder of one prompt; give the folder above it" in refused(folder, out, capsys)
    for file in (folder / "samples").iterdir():
        file.unlink()
    assert "00003: no samples" in refused(own_images, out, capsys)
    (folder / "metadata.jsonl").unlink()
    assert "00003/metadata.jsonl: no such file" in refused(own_images, out, capsys)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"tag": ', "metadata.jsonl: broken JSON"),
        ('{"prompt": "a dog"}', "metadata.jsonl: tag is missing"),
        ('{"tag": "colors", "include": [{"class": "dog", "count": 1}], "prompt": "x"}', "unknown class 'dog'"),
        ('{"tag": "color", "include": [{"class": "star", "count": 1}], "prompt": "x"}', "unknown task 'color'"),
    ],
)
def test_bad_metadata_is_refused(own_images, tmp_path, capsys, text, message):
    (own_images / "00002" / "metadata.jsonl").write_text(text)
    error = refused(own_images, tmp_path / "run", capsys)
    assert message in error and "00002" in error


def test_metadata_may_be_spread_over_lines_and_other_files_are_passed_over(own_images, tmp_path):
    base = run(own_images, tmp_path / "base")
    for folder in own_images.iterdir():
        path = folder / "metadata.jsonl"
        path.write_text(json.dumps(json.loads(path.read_text()), indent=2))
        (folder / "grid.png").write_bytes(b"")
        (folder / "samples" / ".partial.png").write_bytes(b"")
        (folder / "samples" / "0000.txt").write_bytes(b"")
    (own_images / ".notes").mkdir()
    out = run(own_images, tmp_path / "run")
    ours, theirs = (json.loads((place / "summary.json").read_text()) for place in (out, base))
    assert ours["card"]["images"].pop("sha256") != theirs["card"]["images"].pop("sha256")
    assert ours == theirs


def test_classes_that_the_detector_does_not_know_can_count_as_absent(own_images, tmp_path):
    line = '{"tag": "single_object", "include": [{"class": "bench", "count": 1}], "prompt": "a photo of a bench"}'
    (own_images / "00000" / "metadata.jsonl").write_text(line + "\n")
    rows = list(read_rows(run(own_images, tmp_path / "run", "unknown_classes=absent")))
    assert [row["correct"] for row in rows[:2]] == [False, False]
    assert rows[0]["reason"] == "expected bench>=1, found 0"
