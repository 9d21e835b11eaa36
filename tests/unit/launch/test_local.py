"""Workers on one machine: same rows for any number, one failure ends all, a request to stop is passed on."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from genloop import terminal
from genloop.distributed import STOPPING
from genloop.ledger import finished, read_rows
from launch.backends.local import STOP_GRACE, Child, StopRequests, Workers, hung_workers, stop_requests, supervise
from launch.backends.worker import beat_file
from tests.processes import Worker
from tests.runs import genloop, launch, wait_until, workers_of

COUNT, AVERAGE = "tests.worlds.counting_job", "tests.worlds.averaging_job"
UNGUARDED = "tests.worlds.unguarded_job"


def numbers(folder: Path, *lines: str) -> Path:
    """A file with one line a rank."""
    path = folder / "numbers.txt"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize(("job", "procs"), [(COUNT, 1), (COUNT, 2), (UNGUARDED, 3)])
def test_every_item_is_counted_once_by_any_number_of_workers(tmp_path, job, procs):
    done = genloop("run", job, f"out={tmp_path / 'run'}", "limit=9", "--procs", str(procs))
    assert done.returncode == 0, done.stderr
    assert [row["item"] for row in read_rows(tmp_path / "run")] == list(range(9))
    assert "5/5 units (100 %)" in done.stderr
    assert not list((tmp_path / "run/logs").glob("*.beat"))  # who has come to the end does not hang


def test_a_worker_hangs_when_its_beat_stands_still_whatever_the_clock_of_the_file_server_says(tmp_path):
    workers, seen = Workers(COUNT, [], 2, tmp_path, hang_timeout=0.2), {}
    workers.logs.mkdir()
    beats = [beat_file(workers.logs, rank) for rank in range(2)]
    for number, beat in enumerate(beats):
        beat.touch()
        os.utime(beat, (number, number))  # decades ago
    assert hung_workers(workers, seen) == ""
    time.sleep(0.25)
    os.utime(beats[0], (2, 2))
    assert hung_workers(workers, seen).startswith("worker 1 hangs")
    beats[1].unlink()
    os.utime(beats[0], (3, 3))
    assert hung_workers(workers, seen) == ""


def test_what_is_ignored_as_below_nohup_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_requests() as requests:
            signal.raise_signal(signal.SIGHUP)
            assert requests.count == 0
            signal.raise_signal(signal.SIGUSR2)
        assert requests.count == 1
    finally:
        signal.signal(signal.SIGHUP, before)


def test_units_in_the_hands_of_workers_elsewhere_leave_work(tmp_path):
    out = tmp_path / "run"
    words = ["run", COUNT, f"out={out}", "limit=4", "--procs", "2"]
    (out / "leases").mkdir(parents=True)
    (out / "leases" / "00001").write_text('{"pid": 1, "host": "elsewhere"}')
    assert genloop(*words).returncode == 75
    assert finished(out) == {"00000"}
    os.utime(out / "leases" / "00001", (0, 0))
    assert genloop(*words).returncode == 0
    assert finished(out) == {"00000", "00001"}


@pytest.mark.parametrize(("silent_for", "code"), [(0, 0), (60, 75)])
def test_units_of_another_node_leave_work_to_this_one_only_when_nobody_lives_there(tmp_path, silent_for, code):
    out = tmp_path / "run"
    words = ["run", COUNT, f"out={out}", "limit=4", "--nodes", "2"]
    (out / "leases").mkdir(parents=True)
    (out / "leases" / "00001").write_text('{"pid": 1, "host": "elsewhere"}')
    then = time.time() - silent_for
    os.utime(out / "leases" / "00001", (then, then))
    assert genloop(*words).returncode == code
    assert finished(out) == {"00000"}


def test_a_failure_ends_the_command_and_names_worker_unit_and_item(tmp_path):
    words = [f"out={tmp_path / 'run'}", "limit=40", "fail_at=4", "slow=0.2"]
    done = genloop("run", COUNT, *words, "--procs", "2")
    assert done.returncode == 1
    assert "Traceback (most recent call last)" in done.stderr
    assert "ArithmeticError: cannot count to 4 [item 4; rank" in done.stderr
    assert "unit 00002 (items 4 to 5)" in done.stderr
    assert len(finished(tmp_path / "run")) < 20
    assert workers_of(tmp_path / "run") == []


def test_the_rest_of_a_failed_run_resumes_and_the_failed_unit_on_request(tmp_path):
    mend = tmp_path / "mended"
    words = ["run", COUNT, f"out={tmp_path / 'run'}", "limit=10", "fail_at=4", f"fail_unless={mend}", "--procs", "2"]
    assert genloop(*words).returncode == 1
    again = genloop(*words)
    assert again.returncode == 1
    assert "1 of 5 units failed (00002)" in again.stderr
    mend.touch()
    assert genloop(*words, "retry_failed=true").returncode == 0
    assert [row["item"] for row in read_rows(tmp_path / "run")] == list(range(10))


def test_bad_input_is_refused_once_before_any_worker_starts(tmp_path):
    done = genloop("run", COUNT, f"out={tmp_path / 'run'}", "forbidden=true", "--procs", "3")
    assert done.returncode == 2
    assert done.stderr == "genloop: forbidden: this config is forbidden\n"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("procs", ["1", "2"])
def test_ctrl_c_is_answered_at_once_and_a_second_one_does_not_wait_for_the_step(tmp_path, procs):
    out = tmp_path / "run"
    command = launch(COUNT, f"out={out}", "limit=4", "hang_at=2", "--procs", procs)
    wait_until(lambda: finished(out))
    assert command.stderr is not None
    time.sleep(0.5)  # the unit that hangs has begun
    command.send_signal(signal.SIGINT)
    while STOPPING not in command.stderr.readline():
        pass
    assert command.poll() is None  # it waits for a step that never ends
    command.send_signal(signal.SIGINT)
    assert command.wait(timeout=300) == 75 and workers_of(out) == []


@pytest.mark.parametrize(  # the other signals to one worker: tests/unit/core/test_job.py
    ("procs", "number"), [("1", signal.SIGINT), ("2", signal.SIGINT), ("2", signal.SIGTERM), ("2", signal.SIGUSR2)]
)
def test_a_request_to_stop_leaves_no_lease_and_exits_75(tmp_path, procs, number):
    out = tmp_path / "run"
    words = [COUNT, f"out={out}", "limit=400", "slow=0.05", "--procs", procs]
    command = launch(*words)
    wait_until(lambda: finished(out))
    command.send_signal(number)
    _, errors = command.communicate(timeout=300)
    assert command.returncode == 75, errors
    assert "with work left" in errors
    if number == signal.SIGINT:
        assert errors.count(STOPPING) == 1
    assert list((out / "leases").iterdir()) == []
    assert len(finished(out)) < 200


def test_workers_do_not_outlive_a_killed_launcher(tmp_path):
    out = tmp_path / "run"
    command = launch(COUNT, f"out={out}", "limit=400", "slow=0.1", "--procs", "2")
    wait_until(lambda: finished(out) and len(workers_of(out)) == 2)
    command.kill()
    command.communicate()
    wait_until(lambda: workers_of(out) == [])
    assert 0 < len(finished(out)) < 200


def test_a_killed_worker_fails_the_command(tmp_path):
    out = tmp_path / "run"
    command = launch(COUNT, f"out={out}", "limit=400", "slow=0.1", "--procs", "2")
    wait_until(lambda: len(workers_of(out)) == 2 and finished(out))
    os.kill(workers_of(out)[0], signal.SIGKILL)
    _, errors = command.communicate(timeout=300)
    assert command.returncode == 1
    assert "was killed by SIGKILL" in errors
    assert workers_of(out) == []


@pytest.fixture
def deaf():
    """A process that does not listen to SIGTERM."""
    words = ["sh", "-c", "trap '' TERM; echo deaf; sleep 600 & wait; sleep 600"]
    process = subprocess.Popen(words, process_group=0, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"deaf\n"
    yield process
    os.killpg(process.pid, signal.SIGKILL)  # its own children


def test_a_second_request_that_comes_while_the_first_is_answered_kills(tmp_path, monkeypatch, deaf):
    requests = StopRequests(1)
    monkeypatch.setattr(terminal, "err", requests.receive)
    began = time.monotonic()
    assert supervise([Child(deaf, 0, tmp_path / "no.log")], requests) == (75, None)
    assert deaf.returncode == -signal.SIGKILL and time.monotonic() - began < STOP_GRACE / 2


def test_a_worker_that_does_not_listen_is_killed_when_another_fails(tmp_path, deaf):
    failing = subprocess.Popen(["sh", "-c", "exit 3"])
    children = [Child(process, rank, tmp_path / "no.log") for rank, process in enumerate([deaf, failing])]
    code, culprit = supervise(children, StopRequests())
    assert code == 1
    assert culprit is not None and culprit.rank == 1
    assert deaf.returncode == -signal.SIGKILL


def test_torchrun_starts_a_job_too(tmp_path):
    words = ["--standalone", "--nproc-per-node=2", "-m", COUNT, f"out={tmp_path / 'run'}", "limit=9"]
    torchrun = Worker("torch.distributed.run", words)
    said = torchrun.communicate()
    assert torchrun.returncode == 0, said
    assert [row["item"] for row in read_rows(tmp_path / "run")] == list(range(9))


def test_a_collective_job_runs_on_all_workers_together(tmp_path):
    source = numbers(tmp_path, "1", "4")
    done = genloop("run", AVERAGE, f"numbers={source}", f"out={tmp_path / 'run'}", "--procs", "2")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "average 2.5\n"
    assert "averaging_job done, step 2/2, loss 2.5" in done.stderr


def test_a_collective_failure_shows_its_cause_and_not_the_echo(tmp_path):
    source = numbers(tmp_path, "1", "four")
    done = genloop("run", AVERAGE, f"numbers={source}", f"out={tmp_path / 'run'}", "--procs", "2")
    assert done.returncode == 1
    assert "could not convert string to float: 'four' [rank 1]" in done.stderr
    assert "worker 1 failed with exit code 1" in done.stderr


def test_a_collective_job_stops_together_and_exits_75(tmp_path):
    source, out = numbers(tmp_path, "1", "4"), tmp_path / "run"
    command = launch(AVERAGE, f"numbers={source}", f"out={out}", "train.num_steps=4000", "seconds=0.05", "--procs", "2")
    wait_until((out / "metrics.jsonl").exists)
    command.terminate()
    _, errors = command.communicate(timeout=300)
    assert command.returncode == 75, errors
    assert "averaging_job stopped, step " in errors
    assert workers_of(out) == []


def test_a_signal_to_every_process_of_a_collective_job_leaves_its_workers_time_to_stop(tmp_path):
    source, out = numbers(tmp_path, "1", "4"), tmp_path / "run"
    command = launch(AVERAGE, f"numbers={source}", f"out={out}", "train.num_steps=4000", "seconds=2", "--procs", "2")
    wait_until((out / "metrics.jsonl").exists)
    children = Path(f"/proc/{command.pid}/task/{command.pid}/children")
    wait_until(lambda: len(children.read_text().split()) == 1)
    agent = int(children.read_text())
    for number in (signal.SIGTERM, signal.SIGUSR2):  # as a scheduler does
        for process in [agent, *workers_of(out)]:
            os.kill(process, number)
    command.terminate()
    _, errors = command.communicate(timeout=60)
    assert command.returncode == 75, errors
    assert "stopped; the same command goes on" in (out / "logs/worker-0.log").read_text()
    assert "stopped; the same command goes on" in (out / "logs/worker-1.log").read_text()


def test_collective_workers_do_not_outlive_a_killed_launcher(tmp_path):
    source, out = numbers(tmp_path, "1", "4"), tmp_path / "run"
    command = launch(AVERAGE, f"numbers={source}", f"out={out}", "train.num_steps=4000", "seconds=0.05", "--procs", "2")
    wait_until((out / "metrics.jsonl").exists)
    command.kill()
    command.communicate()
    wait_until(lambda: workers_of(out) == [])
    assert (out / "metrics.jsonl").read_text().count("\n") < 4000
