"""What holds for every test and every process that a test starts: one CPU thread, no GPU, and Ctrl-C.

Results are promised for a fixed number of threads, and laws are laws of the CPU: only `-m gpu` sees the GPUs.
`-n auto` starts half as many workers again as there are cores, because many tests wait for processes of their own.
"""

import os
import signal
import tempfile

import pytest

LONGEST = (  # files, begun first: one of them begun last would keep one core busy while the others have nothing to do
    "test_sharded.py",
    "test_laws.py",
    "test_local.py",
    "test_train_judge.py",
    "test_commands.py",
    "test_pipelines.py",
    "test_training_laws.py",
)

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="genloop-tests-")  # hashes of inputs are kept there
os.environ["CROISSANT_CACHE"] = os.environ["XDG_CACHE_HOME"] + "/croissant"
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background job inherits that
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config: pytest.Config) -> None:
    """Before any test module, and so torch, is imported."""
    if config.getoption("markexpr") != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_xdist_auto_num_workers() -> int:
    """Of `-n auto`."""
    cores = len(os.sched_getaffinity(0))
    return cores + (cores + 1) // 2


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Takes effect with `--no-loadscope-reorder`: pytest-xdist by itself begins with the files of most tests."""
    ranks = {name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path.name, len(LONGEST)))
