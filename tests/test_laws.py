"""A result depends on its config alone: not on workers, batches, units, kills or restarts."""

import json
import random
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from genloop.distributed import World
from genloop.job import parse, prepare, run_command
from genloop.ledger import finished
from jobs import evaluate, generate
from tests.runs import contents, rows_text, start, wait_until

SEARCHES = {
    "none": ["sampling.steps=9", "search.strategy=none"],
    "best_of_n": ["sampling.steps=9", "search.strategy=best_of_n", "search.n=3", "sampling.order=object_first"],
}


def run_here(out: Path, *words: str) -> None:
    """One worker in this process."""
    config = parse(generate, ["tiny", f"out={out}", *words])
    generate.main(config, World(), prepare(generate, config).checked)


@pytest.fixture(scope="module", params=list(SEARCHES))
def reference(request, tmp_path_factory):
    """One worker, undisturbed -> (its words, its contents, its rows)."""
    out = tmp_path_factory.mktemp(request.param) / "reference"
    words = SEARCHES[request.param]
    run_here(out, *words)
    return words, contents(out), rows_text(out)


def test_the_reference_is_complete(reference):
    _, files, _ = reference
    assert sum(name.endswith(".png") for name in files) == 24
    assert sum(name.startswith("rows") for name in files) == 3


@pytest.mark.parametrize("batching", [{"slots": 1}, {"slots": 3, "rows_per_forward": 7}])
def test_what_is_decoded_side_by_side_changes_nothing(reference, tmp_path, batching):
    words, files, _ = reference
    run_here(tmp_path / "run", *words, *(f"{key}={value}" for key, value in batching.items()))
    assert contents(tmp_path / "run") == files


def test_another_cut_into_units_gives_the_same_rows_and_images(reference, tmp_path):
    words, files, rows = reference
    run_here(tmp_path / "run", *words, "unit_size=5")
    assert rows_text(tmp_path / "run") == rows
    images = {name: digest for name, digest in files.items() if name.startswith("images")}
    assert contents(tmp_path / "run", ["images"]) == images


@pytest.mark.parametrize("num_workers", [2, 3])
def test_any_number_of_workers_gives_the_same_bytes(reference, tmp_path, num_workers):
    words, files, _ = reference
    out = tmp_path / "run"
    workers = [
        start("generate", "tiny", f"out={out}", *words, rank=r, world_size=num_workers) for r in range(num_workers)
    ]
    said = [worker.communicate() for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * num_workers, said
    assert contents(out) == files


def kill_in_the_middle(job: str, words: Sequence[str], out: Path, world_size: int, pause: float, sign: str) -> int:
    """Start workers, kill all of them `pause` seconds after a new file like `sign` -> units they held."""
    before = set(out.glob(sign))
    workers = [start(job, *words, f"out={out}", rank=r, world_size=world_size) for r in range(world_size)]
    wait_until(lambda: set(out.glob(sign)) != before or all(worker.poll() is not None for worker in workers))
    time.sleep(pause)
    for worker in workers:
        worker.send_signal(signal.SIGKILL)
        worker.communicate()
    return len(list((out / "leases").iterdir()))


def test_killed_workers_lose_nothing_and_double_nothing(reference, tmp_path):
    words, files, _ = reference
    chance = random.Random(0)
    out = tmp_path / "run"
    held = 0
    for world_size, sign in ((2, "images/*/samples/*.png"), (1, "leases/*"), (3, "images/*/samples/*.png")):
        words_here = ["tiny", *words, "slots=1"]  # images appear before their unit is done
        held += kill_in_the_middle("generate", words_here, out, world_size, chance.uniform(0, 0.05), sign)
    assert held > 0
    run_here(out, *words)
    assert contents(out) == files
    assert not list((out / "tmp").iterdir())


def test_a_killed_evaluation_goes_on_to_the_same_rows(tmp_path):
    run_here(tmp_path / "generated", "sampling.steps=4")
    words = ["tiny", f"images={tmp_path / 'generated'}", "unit_size=1"]
    for out in ("quiet", "killed"):
        if out == "killed":
            kill_in_the_middle("evaluate", words, tmp_path / out, 2, 0.0, "rows/*.jsonl")
            assert len(finished(tmp_path / out)) < 24
        assert run_command(evaluate, [*words, f"out={tmp_path / out}"]) == 0
    assert contents(tmp_path / "killed") == contents(tmp_path / "quiet")
    killed, quiet = (json.loads((tmp_path / out / "summary.json").read_text()) for out in ("killed", "quiet"))
    assert killed["card"].pop("code").keys() == quiet["card"].pop("code").keys()  # it may be edited meanwhile
    assert killed == quiet


def test_a_stopped_worker_exits_with_75_and_its_run_goes_on(reference, tmp_path):
    words, files, _ = reference
    out = tmp_path / "run"
    worker = start("generate", "tiny", f"out={out}", *words, "unit_size=1")
    wait_until(lambda: finished(out) or worker.poll() is not None)
    worker.send_signal(signal.SIGTERM)
    _, errors = worker.communicate(timeout=300)
    assert worker.returncode == 75, errors
    assert not list((out / "leases").iterdir())
    run_here(out, *words, "unit_size=1")
    assert contents(out, ["images"]) == {n: d for n, d in files.items() if n.startswith("images")}
