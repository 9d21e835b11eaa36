"""The job runner: every outcome has its exit code, bad input leaves nothing behind."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

from genloop.distributed import LAUNCHERS, World, choose_device
from genloop.job import run_command
from genloop.ledger import finished, plan_units, read_rows
from tests.runs import ROOT, refusal, start, wait_until
from tests.worlds import counting_job


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "tests.worlds.counting_job", *words]


def test_a_job_runs_writes_its_provenance_and_is_done_the_second_time(tmp_path, capsys):
    out = tmp_path / "run"
    assert run_command(counting_job, [f"out={out}", "limit=5"]) == 0
    assert [row["item"] for row in read_rows(out)] == [0, 1, 2, 3, 4]
    assert {"config.yaml", "env.json", "run.json", "rows", "logs"} <= {path.name for path in out.iterdir()}
    before = {path: path.stat().st_mtime_ns for path in (out / "rows").iterdir()}
    assert run_command(counting_job, [f"out={out}", "limit=5"]) == 0
    assert {path: path.stat().st_mtime_ns for path in (out / "rows").iterdir()} == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["forbidden=true"], "forbidden: this config is forbidden"),
        (["limti=3"], "limti: unknown key; did you mean 'limit'?"),
        (["limit=0"], "limit: input should be greater than or equal to 1, found 0"),
        (["source=nowhere.txt"], "source: no such file or folder: nowhere.txt"),
        (["nopreset"], "unknown preset 'nopreset'"),
    ],
)
def test_bad_input_is_one_line_exit_2_and_nothing_written(tmp_path, capsys, words, message):
    preset = [word for word in words if "=" not in word]
    keys = [word for word in words if "=" in word]
    assert message in refusal(counting_job, [*preset, f"out={tmp_path / 'run'}", *keys], tmp_path, capsys)


def test_input_that_turns_out_bad_while_it_is_checked_is_one_line_too(tmp_path, capsys):
    def check(config: counting_job.Config) -> None:
        plan_units(10**9, config.unit_size)

    module = ModuleType("tests.worlds.own_job")
    module.__dict__.update(vars(counting_job) | {"check": check, "__name__": module.__name__})
    assert "unit_size: " in refusal(module, [f"out={tmp_path / 'run'}"], tmp_path, capsys)


@pytest.mark.parametrize(("local_rank", "lines"), [("0", 1), ("3", 0)])
def test_the_first_worker_of_every_machine_says_what_is_wrong_with_its_input(
    tmp_path, monkeypatch, capsys, local_rank, lines
):
    for name, value in {"RANK": "11", "WORLD_SIZE": "16", "LOCAL_RANK": local_rank}.items():
        monkeypatch.setenv(name, value)
    assert run_command(counting_job, [f"out={tmp_path / 'run'}", "forbidden=true"]) == 2
    assert capsys.readouterr().err.count("\n") == lines


def test_a_run_with_units_in_other_hands_is_not_done(tmp_path):
    out = tmp_path / "run"
    assert run_command(counting_job, [f"out={out}", "limit=4"]) == 0
    (out / "rows" / "00001.jsonl").unlink()
    lease = out / "leases" / "00001"
    lease.write_text('{"pid": 1, "host": "elsewhere"}')
    assert run_command(counting_job, [f"out={out}", "limit=4"]) == 75
    os.utime(lease, (0, 0))
    assert run_command(counting_job, [f"out={out}", "limit=4"]) == 0
    assert [row["item"] for row in read_rows(out)] == [0, 1, 2, 3]


def test_a_run_of_another_config_is_refused(tmp_path, capsys):
    out = tmp_path / "run"
    assert run_command(counting_job, [f"out={out}", "limit=4"]) == 0
    assert run_command(counting_job, [f"out={out}", "limit=6"]) == 2
    assert "was started with limit=4, this config has limit=6" in capsys.readouterr().err
    assert len(finished(out)) == 2


def test_a_failure_names_rank_unit_and_item_and_exits_with_1(tmp_path):
    out, cure = tmp_path / "run", tmp_path / "cure"
    words = [f"out={out}", "fail_at=3", f"fail_unless={cure}"]
    done = subprocess.run(command(*words), cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    last = done.stderr.splitlines()[-1]
    assert "ArithmeticError: cannot count to 3" in last
    assert "item 3; rank 0, unit 00001" in last
    rest = subprocess.run(command(*words), cwd=ROOT, capture_output=True, text=True, check=False)
    assert rest.returncode == 1
    assert "1 of 3 units failed (00001)" in rest.stderr
    assert finished(out) == {"00000", "00002"}
    cure.touch()
    again = subprocess.run(command(*words, "retry_failed=true"), cwd=ROOT, capture_output=True, check=False)
    assert again.returncode == 0
    assert [row["item"] for row in read_rows(out)] == list(range(6))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
def test_a_stop_signal_gives_the_unit_back_and_exits_with_75(tmp_path, number):
    out = tmp_path / "run"
    process = subprocess.Popen(command(f"out={out}", "slow=0.2"), cwd=ROOT, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: any(out.glob("leases/*")) or process.poll() is not None)
    process.send_signal(number)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 75, errors
    assert not list((out / "leases").iterdir())
    assert len(finished(out)) < 3


@pytest.fixture
def no_launcher(monkeypatch):
    for name in (name for names in LAUNCHERS for name in names):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.parametrize("names", LAUNCHERS)
def test_the_world_is_read_from_the_launcher(no_launcher, names):
    assert World.from_environment().world_size == 1
    for name, value in zip(names, ("2", "4", "1"), strict=True):
        no_launcher.setenv(name, value)
    world = World.from_environment()
    assert (world.rank, world.world_size, world.local_rank) == (2, 4, 1)


def test_torchrun_counts_more_than_the_launcher_around_it(no_launcher):
    for names, values in zip(LAUNCHERS, (("1", "8", "0"), ("2", "4", "1")), strict=False):
        for name, value in zip(names, values, strict=True):
            no_launcher.setenv(name, value)
    world = World.from_environment()
    assert (world.rank, world.world_size, world.local_rank) == (1, 8, 0)


def test_an_allocation_of_slurm_alone_starts_nothing(no_launcher):
    no_launcher.setenv("SLURM_NTASKS", "4")
    assert World.from_environment().world_size == 1
    no_launcher.setenv("SLURM_PROCID", "0")  # as in a batch script
    assert World.from_environment().world_size == 1


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ({"RANK": "8", "WORLD_SIZE": "8"}, "RANK is 8, WORLD_SIZE is 8: the rank must be below the world size"),
        ({"RANK": "0"}, "only one of RANK and WORLD_SIZE is set"),
        ({"RANK": "zero", "WORLD_SIZE": "1"}, "RANK is 'zero', expected a number"),
    ],
)
def test_a_contradictory_launcher_is_refused_in_one_line(no_launcher, tmp_path, place, message):
    done = subprocess.run(
        [sys.executable, "-m", "launch", "run", "tests.worlds.counting_job", f"out={tmp_path / 'run'}"],
        cwd=ROOT,
        env={**os.environ, **place},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("genloop: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_workers_of_a_machine_take_its_gpus_in_turn(monkeypatch):
    chosen = []
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.set_device", chosen.append)
    assert [choose_device("auto", World(rank, 3, rank)) for rank in range(3)] == ["cuda:0", "cuda:1", "cuda:0"]
    assert chosen == [0, 1, 0]
    assert choose_device("cpu", World()) == "cpu"
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert choose_device("auto", World()) == "cpu"
    with pytest.raises(ValueError, match="torch finds no GPU"):
        choose_device("cuda", World())


def test_the_fingerprint_is_on_record(tmp_path):
    run_command(counting_job, [f"out={tmp_path}", "limit=4"])
    fingerprint = json.loads((Path(tmp_path) / "run.json").read_text())
    assert fingerprint["job"] == "counting_job"
    assert fingerprint["keys"]["limit"] == 4
    assert "out" not in fingerprint["keys"]
    assert len(fingerprint["digest"]) == 64
    assert os.environ.get("GENLOOP_PREPARED") is None


def test_rank_0_alone_reads_the_content_of_inputs(tmp_path):
    out, source = tmp_path / "run", tmp_path / "source"
    words = ["tests.worlds.counting_job", f"out={out}", f"source={source}"]
    source.write_text("1")
    second = start(*words, rank=1, world_size=2)
    time.sleep(0.5)
    assert second.poll() is None
    assert not out.exists()
    source.write_text("22")
    first = start(*words, rank=0, world_size=2)
    assert [first.communicate()[0], second.communicate()[0]] == ["", ""]
    assert (first.returncode, second.returncode) == (0, 0)
    assert json.loads((out / "run.json").read_text())["inputs"] == {"source": hashlib.sha256(b"22").hexdigest()}
    source.write_text("333")  # rank 0 refuses it, rank 1 does not look
    again = [start(*words, rank=rank, world_size=2) for rank in range(2)]
    assert "another content of `source`" in again[0].communicate()[1]
    assert again[1].communicate()[1] == ""
    assert [worker.returncode for worker in again] == [2, 0]
