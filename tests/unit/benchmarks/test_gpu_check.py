"""benchmarks/gpu_check.py runs as it stands: here on the CPU, where every promise of its table holds."""

import re

import pytest

from benchmarks.gpu_check import CHECKS, ROOT, main

QUICK = ["judge", "memory"]


@pytest.mark.parametrize(
    "checks", [QUICK, pytest.param([name for name in CHECKS if name not in QUICK], marks=pytest.mark.slow)]
)
def test_every_row_holds_on_the_cpu(monkeypatch: pytest.MonkeyPatch, capsys, checks) -> None:
    monkeypatch.chdir(ROOT)
    assert main(["--device", "cpu", "--only", *checks]) == 0
    head, *table = re.split(r"^(?=\|)", capsys.readouterr().out, flags=re.M)
    assert "commit" in head and len(table) > 2 + len(checks)
    assert not [row for row in table if "FAIL" in row]
