"""Generated bad inputs of every kind are refused with one line, and nothing is written."""

from pathlib import Path

import pytest

from benchmarks.bad_input_kinds import KINDS, cases
from benchmarks.bad_inputs import refused
from tests.runs import ROOT


@pytest.mark.parametrize("number", [pytest.param(3, id="few"), pytest.param(40, id="many", marks=pytest.mark.slow)])
def test_bad_input_of_every_kind_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.chdir(ROOT)
    drawn = cases(number * len(KINDS), seed=11 + number, root=tmp_path)
    outcomes = {f"{index} {kind}": refused(case, place) for index, kind, place, case in drawn}
    assert {name: outcome for name, outcome in outcomes.items() if outcome != "refused"} == {}
