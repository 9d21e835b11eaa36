"""The job runner: every outcome has its exit code, bad input leaves nothing behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from genloop.distributed import World
from genloop.job import run_command
from genloop.ledger import finished, read_rows
from tests.runs import ROOT
from tests.unit import counting_job


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "tests.unit.counting_job", *words]


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
    assert run_command(counting_job, [*preset, f"out={tmp_path / 'run'}", *keys]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("genloop: ")
    assert message in errors
    assert errors.count("\n") == 1
    assert not list(tmp_path.iterdir())


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
    while not (out / "leases").is_dir() or not list((out / "leases").iterdir()):
        time.sleep(0.01)
    process.send_signal(number)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 75, errors
    assert not list((out / "leases").iterdir())
    assert len(finished(out)) < 3


def test_the_world_is_read_from_the_launcher(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"):
        monkeypatch.delenv(name, raising=False)
    assert World.from_environment().world_size == 1
    monkeypatch.setenv("SLURM_PROCID", "2")
    monkeypatch.setenv("SLURM_NTASKS", "4")
    assert World.from_environment().rank == 2
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "8")
    world = World.from_environment()
    assert (world.rank, world.world_size) == (1, 8)
    monkeypatch.setenv("RANK", "8")
    with pytest.raises(ValueError, match="the rank must be below the world size"):
        World.from_environment()


def test_the_fingerprint_is_on_record(tmp_path):
    run_command(counting_job, [f"out={tmp_path}", "limit=4"])
    mark = json.loads((Path(tmp_path) / "run.json").read_text())
    assert mark["job"] == "counting_job"
    assert mark["keys"]["limit"] == 4
    assert "out" not in mark["keys"]
    assert len(mark["digest"]) == 64
    assert os.environ.get("GENLOOP_PREPARED") is None
