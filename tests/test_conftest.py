"""The surroundings of all tests: see tests/conftest.py."""

import os
import signal
import subprocess
import sys

import pytest

from tests.conftest import LONGEST
from tests.runs import ROOT

SEEN = """
import os, signal
def test_seen():
    is_hidden = os.environ.get("CUDA_VISIBLE_DEVICES") == ""
    print("seen", is_hidden, signal.getsignal(signal.SIGINT) is signal.default_int_handler)
"""


@pytest.mark.parametrize(
    ("words", "hidden"), [([], True), (["-m", "not gpu and not slow"], True), (["-m", "gpu"], False)]
)
def test_gpus_are_hidden_and_ctrl_c_is_heard_also_in_the_background(tmp_path, words, hidden):
    module = tmp_path / "test_seen.py"
    module.write_text(SEEN if hidden else SEEN.replace("def ", "import pytest\n@pytest.mark.gpu\ndef ", 1))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-s", "-p", "no:cacheprovider", "-p", "tests.conftest", *words, str(module)],
        cwd=ROOT,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "0"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN) and None,
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"seen {hidden} True" in done.stdout, done.stdout + done.stderr


def test_files_that_are_begun_first_are_there():
    assert set(LONGEST) <= {file.name for file in (ROOT / "tests").rglob("test_*.py")}
