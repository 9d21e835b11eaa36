"""Which rank, which GPU and which meeting point a process has under every launcher."""

import os
import signal
import socket

import pytest
import torch.distributed as dist

from genloop import terminal
from genloop.distributed import World, _check_gpus, process_group
from genloop.rundir import BadInput
from tests.worlds.ranks import on_two_ranks

SRUN = {
    "SLURM_JOB_ID": "4711",
    "SLURM_STEP_ID": "2",
    "SLURM_PROCID": "11",
    "SLURM_STEP_NUM_TASKS": "16",
    "SLURM_LOCALID": "3",
    "SLURM_JOB_NODELIST": "gpu[07-09,12]",
    "SLURM_STEP_NODELIST": "gpu[08-09]",
}
TORCHRUN = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "MASTER_ADDR": "head", "MASTER_PORT": "29500"}
OPEN_MPI = {f"OMPI_COMM_WORLD_{name}": number for name, number in (("RANK", "2"), ("SIZE", "4"), ("LOCAL_RANK", "0"))}
HYDRA = {"PMI_RANK": "3", "PMI_SIZE": "4", "MPI_LOCALRANKID": "1"}
CRAY = {"PMI_RANK": "3", "PMI_SIZE": "4", "PMI_LOCAL_RANK": "1"}
ALLOCATION = {"SLURM_JOB_ID": "4711", "SLURM_JOB_NODELIST": "gpu[07-09,12]", "SLURM_NTASKS": "4"}


@pytest.mark.parametrize(
    ("environment", "visible", "expected"),
    [
        ({}, 8, (0, 1, 0, 0, None)),
        (ALLOCATION, 8, (0, 1, 0, 0, None)),
        (TORCHRUN, 8, (5, 8, 1, 1, ("head", 29500))),
        (SRUN, 8, (11, 16, 3, 3, ("gpu08", 25378))),
        (SRUN, 1, (11, 16, 3, 0, ("gpu08", 25378))),  # --gpus-per-task=1
        (SRUN, 2, (11, 16, 3, 1, ("gpu08", 25378))),
        (SRUN | {"SLURM_STEP_ID": "3"}, 1, (11, 16, 3, 0, ("gpu08", 25379))),  # two steps of a job do not meet
        (SRUN | {"MASTER_ADDR": "head", "MASTER_PORT": "1234"}, 1, (11, 16, 3, 0, ("head", 1234))),
        (SRUN | TORCHRUN, 8, (5, 8, 1, 1, ("head", 29500))),  # srun starts torchrun
        (OPEN_MPI, 1, (2, 4, 0, 0, None)),
        (OPEN_MPI | ALLOCATION, 1, (2, 4, 0, 0, ("gpu07", 25376))),
        (OPEN_MPI | {"MASTER_ADDR": "head", "MASTER_PORT": "1234"}, 2, (2, 4, 0, 0, ("head", 1234))),
        (HYDRA, 4, (3, 4, 1, 1, None)),
        (CRAY, 4, (3, 4, 1, 1, None)),
    ],
)
def test_a_place_follows_from_the_environment_and_the_visible_gpus(environment, visible, expected):
    world = World.from_environment(environment)
    assert (world.rank, world.world_size, world.local_rank, world.gpu(visible), world.master) == expected


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("node1", "node1"),
        ("node1,node2", "node1"),
        ("a[3-5]", "a3"),
        ("a[009,012-014],b1", "a009"),
        ("r[2-3]n[04,7]-ib,x", "r2n04-ib"),
        ("login.x.org,a[1-2]", "login.x.org"),
    ],
)
def test_the_first_node_of_slurm_s_list_is_the_meeting_point(nodes, first):
    master = World.from_environment(SRUN | {"SLURM_STEP_NODELIST": nodes}).master
    assert master is not None and master[0] == first


@pytest.mark.parametrize("launcher", [1, 2])
def test_ranks_of_slurm_meet_and_ranks_that_share_a_gpu_do_not(monkeypatch, capfd, launcher):
    def work() -> int:
        world = World.from_environment()
        with process_group(world):
            store = dist.PrefixStore("test", dist.distributed_c10d._get_default_store())
            _check_gpus(store, world, f"GPU-{world.rank}")
            try:
                _check_gpus(dist.PrefixStore("other", store), world, "GPU-0")
            except BadInput as error:
                assert "GPU-0" in str(error)
                return error.exit_code
        return 0

    monkeypatch.setenv("SLURM_JOB_ID", str(os.getpid()))
    monkeypatch.setenv("SLURM_STEP_NODELIST", "localhost")
    assert on_two_ranks(monkeypatch, work, launcher=launcher, meeting=False) == [2, 2]


def test_a_port_in_use_is_said_in_one_line():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        world = World(0, 2, master=("127.0.0.1", taken.getsockname()[1]))
        with pytest.raises(BadInput, match="MASTER_PORT"), process_group(world, timeout=2):
            pass


def test_a_meeting_point_that_nobody_knows_is_refused_at_once():
    with pytest.raises(BadInput, match="MASTER_ADDR"), process_group(World(1, 2, master=("no-such-node.invalid", 1))):
        pass


def test_a_second_ctrl_c_counts_while_the_first_is_answered(monkeypatch):
    monkeypatch.setattr(terminal, "err_at_once", lambda text: signal.raise_signal(signal.SIGINT))
    with World().stop_signals(), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize(("handler", "stops"), [(signal.SIG_DFL, True), (signal.SIG_IGN, False)])
def test_the_end_of_a_terminal_is_a_request_to_stop_unless_nohup_is_around(handler, stops):
    before = signal.signal(signal.SIGHUP, handler)
    world = World()
    try:
        with world.stop_signals():
            signal.raise_signal(signal.SIGHUP)
        assert world.stop_requested() == stops and signal.getsignal(signal.SIGHUP) == handler
    finally:
        signal.signal(signal.SIGHUP, before)
