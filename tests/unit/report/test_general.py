"""The page of any run: of a data set with its pictures, of a job without units, of a run that failed."""

import shutil

import pytest

from genloop.job import run_command
from genloop.report import write_page
from genloop.report.markup import markup_of
from jobs import make_prompts, make_shapes
from launch.cli import command
from tests.unit.launch.test_status import count_to
from tests.unit.report.test_page import check_frame, page_of


def test_a_data_set_is_shown_by_its_first_pictures(tmp_path):
    words = ["tiny", "num_samples=14", "unit_size=7", "with_images=true", f"out={tmp_path / 'run'}"]
    assert run_command(make_shapes, words) == 0
    page = write_page([tmp_path / "run"], tmp_path / "a")
    check_frame(page)
    found = page_of(page)
    assert len(found.all("img")) == 12 and "all 2 units are done, 14 items" in found.text and "a photo of" in found.text
    assert page.read_bytes() == write_page([tmp_path / "run"], tmp_path / "b").read_bytes()


def test_a_job_without_units_has_a_page(tmp_path, capsys):
    assert run_command(make_prompts, ["tiny", f"out={tmp_path / 'run'}"]) == 0
    assert command(["report", str(tmp_path / "run")]) == 0
    check_frame(tmp_path / "run" / "report" / "index.html")
    assert "it came to its end" in capsys.readouterr().out


def test_a_run_that_failed_is_shown_with_its_reasons(tmp_path):
    run = tmp_path / "run"
    count_to(run, "limit=6", "fail_at=3")
    page = write_page([run], tmp_path / "page")
    check_frame(page)
    text = page_of(page).text
    assert "Worker 0 failed: ArithmeticError: cannot count to 3" in text and "1 of 3 units are done, 1 failed" in text
    shutil.rmtree(run / "rows")
    assert "0 of 3 units are done, 1 failed" in page_of(write_page([run], tmp_path / "page")).text


def test_what_is_no_run_and_what_has_nothing_yet_is_one_line(tmp_path, capsys):
    count_to(tmp_path / "run", "limit=2")
    shutil.rmtree(tmp_path / "run" / "rows")
    capsys.readouterr()
    for folder in (tmp_path / "run", tmp_path):
        assert command(["report", str(folder)]) == 2
        said = capsys.readouterr().err
        assert str(folder) in said and said.count("\n") == 1


def test_several_runs_of_other_jobs_are_refused_with_the_page_that_they_have(tmp_path, capsys):
    runs = [tmp_path / name for name in "ab"]
    for run in runs:
        count_to(run, "limit=2")
    capsys.readouterr()
    assert command(["report", *map(str, runs)]) == 2
    assert f"genloop report {runs[0]}" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["<script>alert(1)</script>", "![x](http://a/b.png)", "[x](javascript:alert(1))"])
def test_markdown_brings_no_markup_of_its_own(text):
    found = str(markup_of(f"# {text}\n\n| {text} | b |\n| --- | --: |\n| {text} | 2 |\n"))
    assert "<script" not in found and "<img" not in found and "<a" not in found and found.count("<td>") == 2
