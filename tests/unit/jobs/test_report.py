"""The job `report`: the same page as the command's, drawn again on demand; what it cannot show is refused."""

from pathlib import Path

import pytest

from genloop.job import run_command
from genloop.report import write_report
from jobs import report
from tests.worlds.report_runs import Sketch, write_runs


def test_the_job_writes_the_page_that_the_command_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_runs(tmp_path, "a", Sketch())
    assert run_command(report, [f"runs=[{run}]", f"out={tmp_path / 'out'}"]) == 0
    page = tmp_path / "out" / "index.html"
    assert capsys.readouterr().out.strip() == str(page)
    assert page.read_bytes() == write_report([run]).read_bytes()


def test_the_same_command_draws_a_grown_run_again(tmp_path: Path) -> None:
    words = [f"runs=[{tmp_path / 'a-verdicts'}]", f"out={tmp_path / 'out'}"]
    run = write_runs(tmp_path, "a", Sketch(units=3))
    last = run / "rows" / "00002.jsonl"
    rows = last.read_bytes()
    last.unlink()
    assert run_command(report, words) == 0
    assert "2 of 6 units" in (tmp_path / "out" / "index.html").read_text()
    last.write_bytes(rows)
    assert run_command(report, [*words, "gallery=3"]) == 0
    assert "3 of 6 units" in (tmp_path / "out" / "index.html").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["runs=[]"], "runs: list should have at least 1 item"),
        (["runs=[nowhere]"], "nowhere is not a run folder"),
        (["runs=[nowhere]", "galery=3"], "galery: unknown key; did you mean 'gallery'?"),
    ],
)
def test_bad_input_is_refused_in_one_line_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert run_command(report, [*words, f"out={tmp_path / 'out'}"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and message in lines[0]
    assert not (tmp_path / "out").exists()
