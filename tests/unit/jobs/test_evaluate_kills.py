"""Workers that are killed while they look at a unit lose nothing and double nothing, and any number of them agree."""

import signal
import time

import pytest

from genloop.job import run_command
from genloop.ledger import finished
from jobs import evaluate
from tests.runs import contents, start, wait_until
from tests.worlds import slow_evaluate
from tests.worlds.image_folders import small_set, write_images

JOB = slow_evaluate.__name__
RESULTS = ("summary.json", "summary.txt", "card.json")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("generated") / "images", small_set())


@pytest.fixture(scope="module")
def quiet(images, tmp_path_factory):
    """An undisturbed run -> what it computed."""
    out = tmp_path_factory.mktemp("quiet") / "run"
    assert run_command(evaluate, words(images, out)) == 0
    return everything(out)


def words(images, out):
    return ["detector=slow", "colors=shapes", f"images={images}", f"out={out}", "unit_size=6", "images_per_batch=1"]


def everything(out):
    """Rows and results; of the card and the summary all but the code, which others may change meanwhile."""
    return contents(out), *((out / name).read_text().partition('"code"')[0] for name in RESULTS)


def test_kills_inside_of_units_change_nothing(images, quiet, tmp_path):
    out = tmp_path / "run"
    held = 0
    for pause in (0.05, 0.12, 0.2):
        before = len(finished(out))
        workers = [start(JOB, *words(images, out), rank=rank, world_size=2) for rank in range(2)]
        wait_until(lambda: (out / "leases").is_dir() and any((out / "leases").iterdir()))
        time.sleep(pause)
        for worker in workers:
            worker.send_signal(signal.SIGKILL)
            worker.communicate()
        held += len(list((out / "leases").iterdir()))
        assert len(finished(out)) <= before + 2
    assert held >= 3  # each time at least one was in the middle of a unit
    assert run_command(evaluate, words(images, out)) == 0
    assert everything(out) == quiet
    assert not list((out / "tmp").iterdir()) and not list((out / "leases").iterdir())


@pytest.mark.parametrize("num_workers", [2, 3])
def test_any_number_of_workers_gives_the_same(images, quiet, tmp_path, num_workers):
    out = tmp_path / "run"
    workers = [start(JOB, *words(images, out), rank=rank, world_size=num_workers) for rank in range(num_workers)]
    outputs = [worker.communicate(timeout=300) for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * num_workers, outputs
    assert everything(out) == quiet
