"""The train loop on two ranks: they learn what one learns, and wait for each other."""

import os
import socket
import time
from pathlib import Path

import torch

from genloop.distributed import World, process_group
from genloop.training import state
from genloop.training.optimizer import build_optimizer
from genloop.training.state import checkpoints, load_state
from tests.worlds.ranks import on_two_ranks
from tests.worlds.regression import SETTINGS, Regression, fit, metrics, weights, whole_run


def test_two_ranks_learn_what_one_learns(tmp_path):
    expected = whole_run(tmp_path / "whole")
    run = tmp_path / "run"
    run.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    children = []
    for rank in range(2):
        child = os.fork()
        if child == 0:
            world = World(rank, 2, rank, ("127.0.0.1", port))
            with process_group(world):
                fit(Regression(), run, world)
            os._exit(0)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0]
    shared = Regression()
    assert load_state(run, shared.model, build_optimizer(shared.model, SETTINGS)).step == 12
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(weights(shared), expected))
    assert [row["step"] for row in metrics(run)] == [5, 10, 12]


def test_all_ranks_wait_for_the_checkpoint_that_rank_0_writes_and_for_its_look_at_an_old_one(tmp_path, monkeypatch):
    short = SETTINGS.model_copy(update={"num_steps": 4})
    looked = tmp_path / "looked"
    looked.mkdir()

    def slow(*arguments, **keys) -> None:
        time.sleep(0.3)
        write_state(*arguments, **keys)

    def look(folder: Path) -> None:
        (looked / str(os.getpid())).touch()
        verify_folder(folder)

    def work() -> int:
        world = World.from_environment()
        with process_group(world):
            fit(Regression(short), tmp_path, world)
            is_there = len(checkpoints(tmp_path)) == 1
            fit(Regression(short), tmp_path, world)
        return 0 if is_there else 1

    write_state, verify_folder = state.write_state, state.verify_folder
    monkeypatch.setattr(state, "write_state", slow)
    monkeypatch.setattr(state, "verify_folder", look)
    assert on_two_ranks(monkeypatch, work) == [0, 0]
    assert len(list(looked.iterdir())) == 1
