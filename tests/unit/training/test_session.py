"""One launcher at a time trains in a run folder, whoever started it."""

import json

import pytest

from genloop.distributed import World, process_group
from genloop.job import run_command
from genloop.rundir import BadInput
from genloop.training.session import locked
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


def test_ranks_without_a_meeting_point_are_refused(monkeypatch):
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(BadInput, match="MASTER_ADDR"), process_group(World(0, 2)):
        pass
