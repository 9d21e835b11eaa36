"""A result of `edit` depends on its config alone: not on workers, kills or restarts, nor on what was encoded before."""

import time
from pathlib import Path

import pytest

from genloop.job import run_command
from jobs import edit
from tests.runs import contents, start, wait_until

COMPARED = ("rows", "images", "inputs", "conditions", "checksums")
WORDS = ["tiny", "steps=1", "unit_size=1"]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    out = tmp_path_factory.mktemp("edit") / "quiet"
    assert run_command(edit, [*WORDS, f"out={out}"]) == 0
    return contents(out, COMPARED)


@pytest.mark.parametrize("num_workers", [2, 3])
def test_any_number_of_workers_gives_the_same_bytes(tmp_path: Path, quiet: dict[str, str], num_workers: int) -> None:
    out = tmp_path / "run"
    workers = [start("edit", *WORDS, f"out={out}", rank=rank, world_size=num_workers) for rank in range(num_workers)]
    said = [worker.communicate() for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * num_workers, said
    assert contents(out, COMPARED) == quiet


def killed_after(out: Path, sign: str, pause: float) -> bool:
    """Kill a worker `pause` seconds after a new file like `sign` -> whether it was still at work."""
    before = set(out.glob(sign))
    worker = start("edit", *WORDS, f"out={out}")
    wait_until(lambda: set(out.glob(sign)) != before or worker.poll() is not None)
    time.sleep(pause)
    is_at_work = worker.poll() is None
    worker.kill()
    worker.communicate()
    return is_at_work


def test_killed_workers_lose_nothing_and_double_nothing(tmp_path: Path, quiet: dict[str, str]) -> None:
    out, seen = tmp_path / "run", 0
    for sign, pause in (("conditions/*.safetensors", 0.0), ("inputs/*/*.png", 0.01), ("rows/*.jsonl", 0.05)):
        seen += killed_after(out, sign, pause)
    assert seen > 0 and contents(out, COMPARED) != quiet
    assert run_command(edit, [*WORDS, f"out={out}"]) == 0
    assert contents(out, COMPARED) == quiet and not list((out / "leases").iterdir())
