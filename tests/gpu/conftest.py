"""Every test here runs on the CPU in the suite, and on a GPU by `make test-gpu`, against what the CPU gives."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from genloop.models.common.precision import strict_float32
from tests.runs import ROOT


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The device under test. Products in full float32: TensorFloat-32 has three digits."""
    monkeypatch.chdir(ROOT)
    torch.set_num_threads(1)
    with strict_float32(request.param):
        yield request.param


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A place for runs."""
    return tmp_path
