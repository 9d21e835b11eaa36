"""`logs`, `cancel`, `resume`, `--nodes`, `--dry-run`, a worker that hangs: what a user does after a start."""

import json
import os
import signal
import socket
from pathlib import Path

import pytest

from genloop.ledger import finished, read_rows
from launch import cli
from launch.backends.processors import number_of_procs
from tests.runs import genloop, launch, wait_until, workers_of

COUNT, AVERAGE = "tests.worlds.counting_job", "tests.worlds.averaging_job"


@pytest.fixture(scope="module")
def failed_run(tmp_path_factory):
    """Two workers, of which one failed, and which can go on now."""
    out, mended = tmp_path_factory.mktemp("failed") / "run", tmp_path_factory.mktemp("mended") / "file"
    words = [f"out={out}", "limit=8", "fail_at=4", f"fail_unless={mended}"]
    done = genloop("run", COUNT, *words, "--procs", "2")
    assert done.returncode == 1 and f"`genloop logs {out} --errors` says why" in done.stderr
    return out, mended


def test_logs_give_the_cause_first_then_the_end_of_every_log(failed_run):
    out, _ = failed_run
    errors = genloop("logs", str(out), "--errors").stdout.splitlines()
    assert "UnitsFailed" in errors[0] or "ArithmeticError: cannot count to 4 [item 4" in errors[0]
    assert any("unit 00002 failed (attempt " in line and "cannot count to 4" in line for line in errors)
    text = genloop("logs", str(out)).stdout
    logs = [out / f"logs/worker-{number}.log" for number in (0, 1)]
    assert all(
        f"== {log.stem} (the last" in text for log in logs if log.stat().st_size
    )  # one may stop before its first line
    one = genloop("logs", str(out), "--rank", "1").stdout
    assert (out / "logs/worker-1.log").read_text().strip() in one


def test_resume_goes_on_with_the_config_of_the_run_wherever_it_is_typed(failed_run):
    out, mended = failed_run
    mended.touch()
    done = genloop("resume", str(out), "retry_failed=true")
    assert done.returncode == 0, done.stderr
    assert [row["item"] for row in read_rows(out)] == list(range(8))
    assert json.loads((out / "logs/launch.json").read_text())["procs"] == 2
    assert genloop("logs", str(out), "--errors").stdout == "no failures\n"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["logs", "nowhere"], "nowhere is not a run folder"),
        (["resume", "nowhere"], "nowhere was not started by"),
        (["cancel", "nowhere"], "nowhere was not started by"),
        (["run", COUNT, "out=x", "--procs", "many"], "--procs: 1 to 1024 or auto, found many"),
        (["run", COUNT, "out=x", "--nodes", "0"], "--nodes: at least 1"),
        (["run", COUNT, "out=x", "--nodes", "2", "--node-rank", "2"], "--node-rank: 0 to 1"),
        (["run", AVERAGE, "out=x", "--nodes", "2"], "--master: the workers of a collective job"),
        (
            ["run", AVERAGE, "out=x", "--nodes", "2", "--master", "no.host.invalid"],
            "no.host.invalid cannot be resolved",
        ),
        (["run", AVERAGE, "out=x", "--nodes", "2", "--master", "127.0.0.1:zero"], "'zero' is no port"),
        (["run", COUNT, "out=x", "--nodes", "2", "--master", "no.host.invalid"], "no.host.invalid cannot be resolved"),
        (["run", COUNT, "out=x", "--master", "a" * 99], "--master: "),
    ],
)
def test_what_cannot_be_is_one_line(words, says):
    done = genloop(*words)
    assert done.returncode == 2 and says in done.stderr and done.stderr.count("\n") == 1
    assert not Path("x").exists()


@pytest.mark.parametrize("name", ["lr=0.1", "a #2", "a: b", "it's"])
def test_a_run_folder_of_any_name_is_resumed(tmp_path, name):
    out = tmp_path / name
    assert cli.command(["run", COUNT, f"out={json.dumps(str(out))}", "limit=4"]) == 0
    (out / "rows/00001.jsonl").unlink()
    assert cli.command(["resume", str(out)]) == 0
    assert len(finished(out)) == 2 and list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("text", ["", "[]", '{"job": "a"}', '{"job": "a", "procs": 1, "jobs": [], "options": null}'])
def test_a_damaged_record_of_the_start_is_one_line(tmp_path, capsys, text):
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs/launch.json").write_text(text)
    assert cli.command(["resume", str(tmp_path)]) == 2
    assert "launch.json" in capsys.readouterr().err


def test_a_port_in_use_is_said_before_anything_starts(tmp_path):
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = genloop("run", AVERAGE, f"out={tmp_path / 'a'}", "numbers=setup.py", "--nodes", "2", "--master", address)
    assert done.returncode == 2 and "cannot be used on this machine: Address already in use" in done.stderr
    assert not (tmp_path / "a").exists()


def test_a_log_that_is_not_there_is_answered_with_those_that_are(failed_run):
    done = genloop("logs", str(failed_run[0]), "--rank", "7")
    assert done.returncode == 2 and "no log of worker 7 (there are: 0, 1)" in done.stderr


def test_a_dry_run_prints_the_workers_and_writes_nothing(tmp_path):
    out = tmp_path / "run"
    done = genloop("run", COUNT, f"out={out}", "--procs", "2", "--dry-run")
    assert done.stdout.count("launch.backends.worker") == 2 and "RANK=1 WORLD_SIZE=2 LOCAL_RANK=1" in done.stdout
    words = ["--procs", "4", "--nodes", "2", "--node-rank", "1", "--master", "localhost:29555", "--dry-run"]
    done = genloop("run", AVERAGE, f"out={out}", "numbers=setup.py", *words)
    assert "torch.distributed.run --nproc-per-node=4 --nnodes=2 --node-rank=1" in done.stdout
    assert "--rdzv-endpoint=localhost:29555" in done.stdout and "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1" in done.stdout
    assert not out.exists()


def test_cancel_stops_a_run_cleanly_and_resume_ends_it(tmp_path):
    out = tmp_path / "run"
    command = launch(COUNT, f"out={out}", "limit=60", "slow=0.05", "--procs", "2")
    wait_until(lambda: finished(out))
    done = genloop("cancel", str(out))
    assert done.returncode == 0 and "asked to stop" in done.stderr
    _, errors = command.communicate(timeout=300)
    assert command.returncode == 75 and f"`genloop resume {out}` goes on" in errors
    assert "is not running" in genloop("cancel", str(out)).stderr
    done = genloop("resume", str(out))
    assert done.returncode == 0 and len(finished(out)) == 30, done.stderr


def test_logs_are_followed_until_the_run_is_over(tmp_path):
    out = tmp_path / "run"
    command = launch(COUNT, f"out={out}", "limit=12", "slow=0.2", "--procs", "2")
    wait_until(lambda: finished(out))
    done = genloop("logs", str(out), "--follow")
    command.communicate(timeout=300)
    assert done.returncode == 0 and len(finished(out)) == 6


def test_workers_on_two_machines_share_an_independent_run(tmp_path):
    out = tmp_path / "run"
    words = [COUNT, f"out={out}", "limit=12", "slow=0.05", "--procs", "1", "--nodes", "2"]
    second = launch(*words, "--node-rank", "1")
    first = launch(*words)
    codes = [(process.communicate(timeout=300), process.returncode)[1] for process in (first, second)]
    assert codes == [0, 0] and [row["item"] for row in read_rows(out)] == list(range(12))
    assert (out / "logs/worker-0.log").is_file() and (out / "logs/worker-1.log").is_file()


def free_port() -> int:
    """One that nobody listens at now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_collective_job_runs_on_two_machines(tmp_path):
    (tmp_path / "numbers").write_text("1\n4\n")
    words = [AVERAGE, f"out={tmp_path / 'run'}", f"numbers={tmp_path / 'numbers'}", "--nodes", "2"]
    words += ["--master", f"127.0.0.1:{free_port()}"]
    second = launch(*words, "--node-rank", "1")
    first = launch(*words)
    said = [process.communicate(timeout=300) for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], said
    assert said[0][0] == "average 2.5\n"


@pytest.mark.parametrize("job", [COUNT, AVERAGE])
def test_machines_that_see_different_folders_are_told_so_before_any_work(job, tmp_path):
    (tmp_path / "numbers").write_text("1\n4\n")
    words = [job, "--nodes", "2", "--master", f"127.0.0.1:{free_port()}", "--meet-timeout", "1"]
    words += [f"numbers={tmp_path / 'numbers'}"] if job == AVERAGE else ["limit=4"]
    out = [tmp_path / f"machine-{rank}" / "run" for rank in range(2)]
    both = [launch(*words, f"out={folder}", "--node-rank", str(rank)) for rank, folder in enumerate(out)]
    said = [process.communicate(timeout=300)[1] for process in both]
    late = job == COUNT  # the first does not wait for those that may join
    assert [process.returncode for process in both] == [0 if late else 2, 2], said
    for rank in (1,) if late else (0, 1):
        assert said[rank].startswith(f"genloop: node {rank} (") and said[rank].count("\n") == 1
        assert str(out[rank]) in said[rank] and not out[rank].exists()


def test_a_worker_that_hangs_is_found_its_stacks_are_kept_and_all_are_stopped(tmp_path):
    out = tmp_path / "run"
    words = [COUNT, f"out={out}", "limit=8", "hang_at=4", "--procs", "2", "--hang-timeout", "3"]
    command = launch(*words)
    _, errors = command.communicate(timeout=300)
    assert command.returncode == 1 and "hangs: no safe point for" in errors
    logs = "".join(file.read_text() for file in (out / "logs").glob("worker-*.log"))
    assert "counting_job.py" in logs and "Current thread" in logs
    assert workers_of(out) == []


def test_a_rank_that_hangs_stops_its_peers_too(tmp_path):
    (tmp_path / "numbers").write_text("1\n4\n")
    out = tmp_path / "run"
    words = [AVERAGE, f"numbers={tmp_path / 'numbers'}", f"out={out}", "hanging=1", "--procs", "2"]
    command = launch(*words, "--hang-timeout", "4")
    _, errors = command.communicate(timeout=120)
    assert command.returncode == 1 and "hangs: no safe point for" in errors
    assert "averaging_job.py" in (out / "logs/worker-1.log").read_text()
    assert workers_of(out) == []


def test_a_killed_worker_of_a_collective_job_is_the_cause_not_its_peer(tmp_path):
    (tmp_path / "numbers").write_text("1\n4\n")
    out = tmp_path / "run"
    words = [AVERAGE, f"numbers={tmp_path / 'numbers'}", f"out={out}", "train.num_steps=4000", "seconds=0.05"]
    command = launch(*words, "--procs", "2")
    wait_until((out / "metrics.jsonl").exists)
    killed = int((out / "logs/worker-1.beat").read_text())
    os.kill(killed, signal.SIGKILL)
    _, errors = command.communicate(timeout=300)
    assert command.returncode == 1 and "worker 1 was killed by SIGKILL" in errors


@pytest.mark.parametrize(("visible", "number"), [("0,1,2", 3), ("", 1), ("-1", 1), ("5", 1)])
def test_auto_is_one_worker_a_gpu_that_may_be_used(monkeypatch, visible, number):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert number_of_procs("auto") == number


def test_a_task_of_an_array_does_not_wait_for_one_that_may_start_hours_later(tmp_path):
    out = tmp_path / "run"
    plan = out / "logs" / "submit-1"
    plan.mkdir(parents=True)
    (plan / "plan.json").write_text("{}")
    words = ["run", COUNT, f"out={out}", "limit=4", "--nodes", "3"]
    done = genloop(*words, "--node-rank", "2", GENLOOP_PLAN=str(plan))
    assert done.returncode == 0 and [row["item"] for row in read_rows(out)] == list(range(4)), done.stderr
    assert genloop(*words, GENLOOP_PLAN=str(plan)).returncode == 0
