"""Images in shards: the PNGs of a folder, the same bytes from any workers, read by others and by every job here."""

import json
import shutil
from pathlib import Path
from types import ModuleType

import datasets
import numpy as np
import pytest
import webdataset

from genloop.data.image_reader import read_image
from genloop.data.members import is_there, read_any
from genloop.job import run_command
from genloop.ledger import read_rows
from genloop.runs.generated import read_generated_run
from jobs import build_judge_data, build_pairs, evaluate, generate, metrics, report, verify
from tests.runs import contents, refusal, start, wait_until

WORDS = ["tiny_shards", "limit=6", "images_per_prompt=2", "unit_size=2", "sampling.steps=2"]
COMPARED = ("rows", "shards", "checksums")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("shards") / "run"
    assert run_command(generate, [*WORDS, f"out={out}"]) == 0
    return out


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("folder") / "run"
    assert run_command(generate, [*WORDS, "format=folder", f"out={out}"]) == 0
    return out


@pytest.fixture(scope="module")
def verdicts(run: Path, folder: Path) -> list[Path]:
    found = [place.parent / "verdicts" for place in (run, folder)]
    for place, out in zip((run, folder), found):
        assert run_command(evaluate, ["tiny", "expect.on_missing=report", f"images={place}", f"out={out}"]) == 0
    return found


def test_shards_hold_the_pictures_of_the_folder_and_all_that_made_them(run: Path, folder: Path) -> None:
    rows, others = list(read_rows(run)), list(read_rows(folder))
    assert len(rows) == len(others) == 12 and not (run / "images").exists()
    for row, other in zip(rows, others):
        assert (
            row["image"]
            == f"shards/{row['prompt_index'] // 2:05d}.tar/{row['prompt_index']:05d}_{row['sample']:04d}.png"
        )
        assert row | {"image": other["image"]} == other
        assert read_any(run / row["image"]) == (folder / other["image"]).read_bytes()
        made = json.loads(read_any((run / row["image"]).with_suffix(".json")))
        assert {"prompt", "metadata", "seed", "sampling", "weights", "generator", "scores", "cost"} <= made.keys()
        assert (made["sha256"], made["cost"], made["prompt"]) == (row["sha256"], row["cost"], row["prompt"])
    assert not is_there(run / "shards" / "00000.tar" / "00009_0000.png")
    assert not is_there(run / "shards" / "00009.tar" / "00000_0000.png")


def test_webdataset_reads_them(run: Path) -> None:
    ours = {row["image"].rpartition("/")[2][:-4]: row for row in read_rows(run)}
    theirs = list(
        webdataset.WebDataset(
            [str(path) for path in sorted((run / "shards").glob("*.tar"))], shardshuffle=False
        ).decode("pil")
    )
    assert [sample["__key__"] for sample in theirs] == list(ours)
    for sample in theirs:
        assert sample["txt"] == ours[sample["__key__"]]["prompt"] == sample["json"]["prompt"]
        assert sample["png"].size == (24, 24)


@pytest.mark.parametrize("is_streamed", [False, True])
def test_the_package_datasets_reads_them(run: Path, tmp_path: Path, is_streamed: bool) -> None:
    ours = {row["image"].rpartition("/")[2][:-4]: row for row in read_rows(run)}
    files = [str(path) for path in sorted((run / "shards").glob("*.tar"))]
    theirs = list(
        datasets.load_dataset(
            "webdataset", data_files={"train": files}, split="train", streaming=is_streamed, cache_dir=str(tmp_path)
        )
    )
    assert [sample["__key__"] for sample in theirs] == list(ours)
    for sample in theirs:
        row = ours[sample["__key__"]]
        assert sample["txt"] == row["prompt"] == sample["json"]["prompt"]
        assert sample["json"]["sha256"] == row["sha256"] and sample["json"]["cost"].keys() == row["cost"].keys()
        assert np.array_equal(np.asarray(sample["png"]), read_image(run / row["image"]))


@pytest.mark.parametrize("world_size, sign", [(2, "leases/0*"), (3, "shards/*.tar")])
def test_workers_kills_and_batches_change_no_byte(run: Path, tmp_path: Path, world_size: int, sign: str) -> None:
    words = [*WORDS, f"out={tmp_path / 'run'}", "lease_timeout=5", "slots=3"]
    workers = [start("generate", *words, rank=r, world_size=world_size) for r in range(world_size)]
    wait_until(lambda: list((tmp_path / "run").glob(sign)))
    for worker in workers:
        worker.kill()
        worker.wait()
    workers = [start("generate", *words, rank=r, world_size=world_size) for r in range(world_size)]
    assert [worker.wait() for worker in workers] == [0] * world_size
    assert contents(tmp_path / "run", COMPARED) == contents(run, COMPARED)


def test_verdicts_and_metrics_are_those_of_the_folder(verdicts: list[Path], run: Path, folder: Path) -> None:
    ours, others = (list(read_rows(out)) for out in verdicts)
    assert [row | {"image": ""} for row in ours] == [row | {"image": ""} for row in others]
    assert ours[0]["image"] == "00000.tar/00000_0000.png"
    found = []
    for place in (run, folder):
        words = ["tiny", f"images={place}", "metrics={vqa_score: {}}", f"out={place.parent / 'metrics'}"]
        assert run_command(metrics, words) == 0
        found.append([row | {"image": ""} for row in read_rows(place.parent / "metrics")])
    assert found[0] == found[1] and len(found[0]) == 12


def test_the_report_shows_them(verdicts: list[Path], tmp_path: Path) -> None:
    pages = []
    for number, out in enumerate(verdicts):
        assert run_command(report, ["tiny", f"runs=[{out}]", f"out={tmp_path / str(number)}"]) == 0
        pages.append((tmp_path / str(number) / "index.html").read_text())
    assert pages[0].count("data:image/png") == pages[1].count("data:image/png") > 12


def test_what_learns_from_a_run_reads_the_same_prompts(
    run: Path, folder: Path, verdicts: list[Path], tmp_path: Path
) -> None:
    ours, others = read_generated_run(run), read_generated_run(folder)
    assert ours.prompts == others.prompts and ours.prompts[0].tag == "single_object"
    outs = [tmp_path / "a", tmp_path / "b"]
    for place, judged, out in zip((run, folder), verdicts, outs):
        words = ["tiny", f"source={place}", f"verdicts={judged}", "held_out=[]", f"out={out}"]
        assert run_command(build_pairs, words) == 0
    assert (
        contents(outs[0], ["shards"]) and contents(outs[0], ["shards"]).keys() == contents(outs[1], ["shards"]).keys()
    )


def test_a_judge_learns_from_a_run_in_shards(run: Path, folder: Path, tmp_path: Path) -> None:
    outs = [tmp_path / "a", tmp_path / "b"]
    for place, out in zip((run, folder), outs):
        assert (
            run_command(
                build_judge_data, ["tiny", "num_scenes=0", f"source={place}", "preview_steps=[1]", f"out={out}"]
            )
            == 0
        )
    assert len(list((outs[0] / "shards").rglob("*.tar"))) == len(list((outs[1] / "shards").rglob("*.tar"))) > 0


@pytest.mark.parametrize("job", [evaluate, metrics], ids=["evaluate", "metrics"])
@pytest.mark.parametrize("damage", ["torn", "no json"])
def test_damaged_shards_are_refused_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], run: Path, job: ModuleType, damage: str
) -> None:
    copy = tmp_path / "shards"
    shutil.copytree(run / "shards", copy)
    shard = copy / "00001.tar"
    data = shard.read_bytes()
    shard.write_bytes(data[:3000] if damage == "torn" else data.replace(b'{"schema"', b'["schema"', 1))
    assert "00001.tar" in refusal(job, ["tiny", f"images={copy}", f"out={tmp_path / 'run'}"], tmp_path, capsys)


@pytest.mark.parametrize("what", ["nothing", "a pixel", "a shard"])
def test_verify_checks_shards(tmp_path: Path, capsys: pytest.CaptureFixture[str], run: Path, what: str) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    shard = copy / "shards" / "00001.tar"
    data = bytearray(shard.read_bytes())
    if what == "a shard":
        shard.unlink()
    if what == "a pixel":
        data[data.index(b"IDAT") + 8] ^= 1
        shard.write_bytes(bytes(data))
    words = [f"run={copy}", f"out={tmp_path / 'verified'}"]
    if what == "nothing":
        assert run_command(verify, words) == 0 and "12 rows, 18 files" in capsys.readouterr().out
        return
    with pytest.raises(SystemExit, match="1"):
        run_command(verify, words)
    assert "shards/00001.tar/00002_0000.png" in capsys.readouterr().err
