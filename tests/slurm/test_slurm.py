"""`genloop submit` on a real Slurm of two nodes: arrays, chains, stops, preemption, requeue."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from genloop.ledger import finished, read_rows
from launch.backends.slurm import Task, tasks
from tests.runs import genloop, wait_until
from tests.slurm.cluster import RealSlurm

pytestmark = pytest.mark.slurm
COUNT = "tests.worlds.counting_job"
CLUSTER = {"kind": "slurm", "procs": 1, "cpus": 2, "time": "10m", "lead": "30s"}


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealSlurm]:
    found = RealSlurm(tmp_path_factory.mktemp("slurm"))
    os.environ["SLURM_CONF"] = str(found.config)
    try:
        found.start()
        yield found
    finally:
        found.stop()
        del os.environ["SLURM_CONF"]


def submit(run: Path, job: str, *words: str, **cluster: object) -> str:
    """Submit it -> its id."""
    file = run.with_suffix(".yaml")
    file.write_text(json.dumps(CLUSTER | cluster))
    done = genloop("submit", job, f"out={run}", "--cluster", str(file), *words, SLURM_CONF=os.environ["SLURM_CONF"])
    assert done.returncode == 0, done.stderr
    return json.loads((run / "logs/launch.json").read_text())["jobs"][0]


def command(*words: str) -> str:
    """A command that succeeds -> all that it said."""
    done = genloop(*words, SLURM_CONF=os.environ["SLURM_CONF"])
    assert done.returncode == 0, (words, done.stderr)
    return done.stdout + done.stderr


def seen(run: Path) -> list[Task]:
    """The tasks of a run."""
    launch = json.loads((run / "logs/launch.json").read_text())
    return tasks(launch["jobs"][0], run / "logs" / launch["options"]["plan"])


def ended(run: Path, *states: str, seconds: float = 90) -> list[Task]:
    """Wait until no task lives -> tasks, which have to be in one of these states."""
    wait_until(lambda: not any(task.is_live for task in seen(run)), seconds)
    found = seen(run)
    assert {task.state for task in found} <= set(states), [task.line for task in found]
    return found


def stopped(run: Path, seconds: float = 90) -> None:
    """Wait until every task has noted a clean stop and waits to go on."""
    wait_until(lambda: all(t.exits == (75,) and t.state == "PENDING" for t in seen(run)), seconds)


def test_an_array_shares_a_run_and_another_run_waits_for_it(slurm: RealSlurm, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    submit(first, COUNT, "limit=12", "slow=0.3", "--array", "2")
    submit(second, COUNT, "limit=4", f"source={first / 'rows'}", "--after", str(first))
    assert "waiting" in command("status", str(second))
    assert "(Dependency)" in command("status", str(second))
    found = ended(second, "COMPLETED")
    assert found[0].exits == (0,) and [task.exits for task in ended(first, "COMPLETED")] == [(0,), (0,)]
    assert [row["item"] for row in read_rows(first)] == list(range(12)) and len(finished(second)) == 2
    assert {status["rank"] for status in json.loads(command("status", str(first), "--json"))["workers"]} == {0, 1}
    assert "attempt 0: exit code 0" in command("logs", str(first))


def test_a_failed_task_says_why_ends_what_waits_for_it_and_is_resumed(slurm: RealSlurm, tmp_path: Path) -> None:
    run, next_run, mended = tmp_path / "run", tmp_path / "next", tmp_path / "mended"
    submit(run, COUNT, "limit=8", "fail_at=4", f"fail_unless={mended}", "slow=0.3", "--array", "2")
    submit(next_run, COUNT, "limit=4", "--after", str(run))
    ended(run, "FAILED", "COMPLETED")
    assert "cannot count to 4 [item 4" in command("logs", str(run), "--errors")
    ended(next_run, "CANCELLED")
    assert finished(next_run) == set()
    mended.touch()
    command("resume", str(run), "retry_failed=true")
    ended(run, "COMPLETED")
    assert [row["item"] for row in read_rows(run)] == list(range(8))


def test_a_preempted_run_stops_cleanly_waits_and_goes_on_and_a_cancelled_one_does_not(
    slurm: RealSlurm, tmp_path: Path
) -> None:
    low, high = tmp_path / "low", tmp_path / "high"
    job = submit(low, COUNT, "limit=80", "slow=0.2", "--array", "2", partition="low", cpus=3)
    wait_until(lambda: len(finished(low)) > 2)
    urgent = submit(high, COUNT, "limit=400", "slow=0.2", "--array", "2", cpus=3)
    stopped(low)
    assert 0 < len(finished(low)) < 40 and list((low / "leases").iterdir()) == []
    wait_until(lambda: finished(high))
    assert "cancelled" in command("cancel", str(high))
    assert all(0 not in task.exits for task in ended(high, "CANCELLED"))
    assert slurm.state(urgent) == "CANCELLED CANCELLED" and list((high / "leases").iterdir()) == []
    for task in ("_0", "_1"):
        slurm.hurry(job + task)
    assert [task.exits for task in ended(low, "COMPLETED")] == [(75, 0), (75, 0)]
    assert [row["item"] for row in read_rows(low)] == list(range(80))
    assert "attempt 1: exit code 0" in command("logs", str(low))


def test_the_signal_ahead_of_the_time_limit_stops_a_run_that_goes_on_later(slurm: RealSlurm, tmp_path: Path) -> None:
    run = tmp_path / "run"
    job = submit(run, COUNT, "limit=30", "slow=1", time="1m", lead="50s")
    stopped(run)
    assert list((run / "leases").glob("*")) == []  # Slurm may have sent it before anything began
    units = len(finished(run))
    slurm.run("scontrol", "update", f"JobId={job}", "TimeLimit=10")
    slurm.hurry(job)
    assert ended(run, "COMPLETED")[0].exits == (75, 0) and units < 15
    assert [row["item"] for row in read_rows(run)] == list(range(30))


def test_a_partition_that_is_not_there_is_refused_in_slurms_words(slurm: RealSlurm, tmp_path: Path) -> None:
    words = ["submit", COUNT, f"out={tmp_path / 'run'}", "--cluster", "slurm", "--gpus", "0", "--partition", "nowhere"]
    done = genloop(*words, SLURM_CONF=os.environ["SLURM_CONF"])
    assert done.returncode == 2 and "invalid partition specified: nowhere" in done.stderr
    assert done.stderr.count("\n") == 1 and not (tmp_path / "run").exists()


def test_a_pipeline_is_a_chain_that_ends_by_itself(slurm: RealSlurm, tmp_path: Path) -> None:
    out, cluster, file = tmp_path / "out", tmp_path / "cluster.yaml", tmp_path / "pipeline.yaml"
    cluster.write_text(json.dumps(CLUSTER))
    first = {"job": COUNT, "set": {"limit": 6, "slow": 0.2}, "nodes": 2}
    second = {"job": COUNT, "set": {"limit": 4, "source": "${stages.first}/rows"}}
    file.write_text(json.dumps({"out": str(out), "stages": {"first": first, "second": second}}))
    words = ["pipeline", str(file), "--cluster", str(cluster)]
    assert "2 jobs" in command(*words)
    assert "in the queue already" in command(*words)
    wait_until(lambda: "2/2 stages done" in command("status", str(out)), 90)
    assert [row["item"] for row in read_rows(out / "second")] == list(range(4))
    assert command(*words).count("done already") == 2


def test_a_node_that_dies_leaves_its_units_to_the_other_and_its_task_starts_again(
    slurm: RealSlurm, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    job = submit(run, COUNT, "limit=60", "slow=0.3", "lease_timeout=5", "--array", "2", cpus=3)
    wait_until(lambda: len(finished(run)) > 2 and all((run / f"logs/worker-{rank}.beat").exists() for rank in (0, 1)))
    lost = next(task.id for task in seen(run) if task.nodes == "n2")
    slurm.kill_node("n2")
    wait_until(lambda: slurm.state(lost) == "PENDING")
    left = len(finished(run))
    wait_until(lambda: len(finished(run)) > left + 2)  # the other one works on
    slurm.revive_node("n2")
    slurm.hurry(lost)
    ended(run, "COMPLETED")
    assert [row["item"] for row in read_rows(run)] == list(range(60)) and list((run / "leases").iterdir()) == []
    assert job == lost.partition("_")[0]
