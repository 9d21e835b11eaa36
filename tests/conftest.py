"""What holds for every test and every process that a test starts: one CPU thread, no GPU, and Ctrl-C.

Results are promised for a fixed number of threads, and laws are laws of the CPU: only `-m gpu` sees the GPUs.
"""

import os
import signal
import tempfile

import pytest

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="genloop-tests-")  # hashes of inputs are kept there
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background job inherits that
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config: pytest.Config) -> None:
    """Before any test module, and so torch, is imported."""
    if config.getoption("markexpr") != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
