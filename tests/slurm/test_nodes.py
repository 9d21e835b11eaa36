"""`genloop submit --nodes 2` on a real Slurm whose nodes have addresses and names of their own, where that can be."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runs import wait_until
from tests.slurm.cluster import RealSlurm, Spaces

pytestmark = pytest.mark.slurm
AVERAGE = "tests.worlds.averaging_job"
CLUSTER = {"kind": "slurm", "procs": 2, "cpus": 4, "time": "10m", "requeue_limit": 0}


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealSlurm]:
    folder = tmp_path_factory.mktemp("slurm")
    try:
        spaces = Spaces(folder)
    except OSError:
        spaces = None  # both nodes on the loopback interface
    found = RealSlurm(folder, spaces)
    try:
        found.start()
        yield found
    finally:
        found.stop()
        if spaces:
            spaces.close()


def genloop(slurm: RealSlurm, *words: str) -> str:
    """The command where Slurm can be reached."""
    return slurm.run(sys.executable, "-m", "launch", *words)


def submit(slurm: RealSlurm, run: Path, numbers: str, *words: str) -> str:
    """Two nodes of two workers that average the four numbers -> the job's id."""
    source, file = run.with_suffix(".txt"), run.with_suffix(".yaml")
    source.write_text(numbers)
    file.write_text(json.dumps(CLUSTER))
    genloop(slurm, "submit", AVERAGE, f"out={run}", f"numbers={source}", *words, "--cluster", str(file), "--nodes", "2")
    return json.loads((run / "logs/launch.json").read_text())["jobs"][0]


def exit_code(run: Path) -> int:
    """Wait until the script has noted it."""
    wait_until(lambda: any(file.read_text() for file in run.glob("logs/submit-1/*.exit")), 120)
    return int(next(run.glob("logs/submit-1/*.exit")).read_text())


def test_a_collective_job_runs_on_two_nodes_and_stops_on_both_when_told_to(slurm: RealSlurm, tmp_path: Path) -> None:
    run = tmp_path / "run"
    job = submit(slurm, run, "1\n2\n3\n6\n", "train.num_steps=10000", "seconds=0.05")
    wait_until((run / "metrics.jsonl").exists, 90)
    assert "averaging_job running, step " in genloop(slurm, "status", str(run))
    slurm.run("scancel", "--batch", "--signal=USR1", job)
    assert exit_code(run) == 75
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["loss"] == 3 and last["step"] < 10000
    assert {file.name for file in (run / "logs").glob("worker-*.log")} == {f"worker-{rank}.log" for rank in range(4)}


def test_a_failure_on_one_of_two_nodes_ends_both_and_is_the_cause(slurm: RealSlurm, tmp_path: Path) -> None:
    run = tmp_path / "run"
    submit(slurm, run, "1\n2\n3\nsix\n")
    assert exit_code(run) not in {0, 75}
    assert genloop(slurm, "logs", str(run), "--errors").startswith("worker 3 failed: ValueError: could not convert")
