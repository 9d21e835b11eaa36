"""One launcher at a time trains in a run folder, whoever started it."""

import json
import os

import pytest

from genloop.distributed import World, process_group
from genloop.job import run_command
from genloop.lease import Lease
from genloop.rundir import BadInput
from genloop.training.session import check_lock, locked
from jobs import train_showo
from tests.runs import ROOT
from tests.worlds.ranks import on_two_ranks

WORDS = ["tiny", "train.num_steps=1"]


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def test_a_second_launcher_is_refused_in_one_line(tmp_path, capfd):
    run = tmp_path / "run"
    with locked(run, World()):
        with pytest.raises(SystemExit) as caught:
            run_command(train_showo, [*WORDS, f"out={run}"])
        errors = [line for line in capfd.readouterr().err.splitlines() if line.startswith("genloop: ")]
        assert (caught.value.code, len(errors)) == (2, 1)
        assert not (run / "checkpoints").exists()
    assert run_command(train_showo, [*WORDS, f"out={run}"]) == 0
    assert not (run / "training.lock").exists() and not (run / "tmp").exists()


@pytest.mark.parametrize("launcher", [2, 3])
def test_also_when_mpirun_started_its_ranks(tmp_path, monkeypatch, capfd, launcher):
    run = tmp_path / "run"
    with locked(run, World()):
        words = [*WORDS, f"out={run}"]
        assert on_two_ranks(monkeypatch, lambda: run_command(train_showo, words), launcher=launcher) == [2, 2]
    assert len([line for line in capfd.readouterr().err.splitlines() if line.startswith("genloop: ")]) == 1


def test_the_lock_of_a_killed_run_is_taken_over(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    with locked(tmp_path / "other", World()):
        owner = json.loads((tmp_path / "other" / "training.lock").read_text())
    (run / "training.lock").write_text(json.dumps(owner | {"pid": 2**22 + 1}))  # no process has this number
    with locked(run, World()):
        assert json.loads((run / "training.lock").read_text())["pid"] == owner["pid"]


@pytest.mark.parametrize("key", ["log_every", "save_every"])
def test_a_suspended_training_that_another_has_taken_over_writes_nothing_more(tmp_path, monkeypatch, capfd, key):
    def taken_over(run):
        """As after a long silence, at the first file that is to be written."""
        other = Lease(run / "training.lock", run / "tmp", "other", timeout=60)
        os.utime(other.path, (0, 0))
        assert other.acquire()
        for module in writers:
            monkeypatch.setattr(f"{module}.check_lock", check_lock)
        check_lock(run)

    run, writers = tmp_path / "run", ("genloop.training.loop", "genloop.training.lines")
    for module in writers:
        monkeypatch.setattr(f"{module}.check_lock", taken_over)
    with pytest.raises(SystemExit) as caught:
        run_command(train_showo, ["tiny", "train.num_steps=3", f"train.{key}=1", f"out={run}"])
    assert caught.value.code == 1 and "taken over by another launcher" in capfd.readouterr().err
    assert json.loads((run / "training.lock").read_text())["worker"] == "other"
    assert not (run / "checkpoints").exists() and not (run / "metrics.jsonl").exists() and not (run / "showo").exists()


def test_ranks_without_a_meeting_point_are_refused():
    with pytest.raises(BadInput, match="MASTER_ADDR"), process_group(World(0, 2)):
        pass


def test_what_a_launcher_left_that_was_killed_while_it_asked_goes_with_the_training(tmp_path):
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp/.training.lock.0a.tmp").write_text("{}")
    with locked(tmp_path, World()):
        pass
    assert not (tmp_path / "tmp").exists()
