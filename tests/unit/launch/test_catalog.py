"""Jobs are found by name without being imported, and their manuals show every config key."""

import importlib
import re

import pytest

from genloop.registry import lookup
from genloop.search import STRATEGIES
from launch.catalog import import_job, job_files, manual, presets, summaries


def test_every_job_is_listed_with_the_first_line_of_its_manual():
    found = summaries()
    assert set(found) == set(job_files()) >= {"generate", "evaluate", "make_prompts", "report", "verify"}
    for name, summary in found.items():
        assert summary == (importlib.import_module(f"jobs.{name}").__doc__ or "").splitlines()[0]


def test_a_misspelt_job_is_refused_with_the_one_that_was_meant():
    with pytest.raises(ValueError, match=r"'genrate'; .*'generate'"):
        import_job("genrate")


def test_a_job_may_live_in_another_package():
    assert import_job("tests.worlds.counting_job").KIND == "independent"


def test_a_module_that_is_no_job_or_not_there_is_refused():
    with pytest.raises(ValueError, match=r"genloop\.records .*KIND, Config, main"):
        import_job("genloop.records")
    with pytest.raises(ValueError, match=r"no module 'tests.unit.nothing_here'"):
        import_job("tests.unit.nothing_here")


@pytest.mark.parametrize("name", ["../x.y", ".x", "x.", "..", "a b.c", "/etc/x.py", "a.\0"])
def test_what_is_no_name_of_a_module_is_refused(name):
    with pytest.raises(ValueError, match="is no job"):
        import_job(name)
    with pytest.raises(ValueError, match="cannot be imported"):
        lookup({}, f"{name}:Part", "strategy")


def test_a_job_in_the_current_folder_is_not_imported_and_the_error_says_why(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "work.py").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"no module 'mine\.work'.*PYTHONPATH"):
        import_job("mine.work")


def test_the_manual_names_every_key_with_type_default_and_meaning():
    lines = manual(import_job("tests.worlds.counting_job")).splitlines()
    assert lines[0] == "Count to the limit: the smallest real job, for tests of the runner and the launcher."
    keys = {words[0]: words[1:] for line in lines[lines.index("") :] if (words := line.split())}
    assert keys["out"][:2] == ["path,", "required;"]
    assert keys["fail_at"][:3] == ["int|null", "=", "null;"]
    assert keys["slow"][:3] == ["float", "=", "0.0;"]
    assert keys["forbidden"][:3] == ["bool", "=", "false;"]
    assert keys["seed"][3:] == ["keys", "every", "random", "number", "of", "the", "run"]


def test_the_manual_of_nested_keys_has_their_dotted_names():
    text = manual(import_job("generate"))
    assert "  search.strategy " in text and "  generator.options.dtype " in text
    assert "float32|bfloat16|float16" in text


def test_the_manual_names_the_keys_of_groups_by_any_name():
    lines = manual(import_job("scaling_curve")).splitlines()
    keys = {words[0]: words[1:] for line in lines if (words := line.split())}
    assert keys["judges"][0].startswith("dict") and keys["judges.NAME.kind"][:3] == ["str", "=", "shapes_oracle;"]


def test_presets_are_those_of_the_package_and_of_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "configs/generate").mkdir(parents=True)
    (tmp_path / "configs/generate/mine.yaml").write_text("# My own.\nout: x\n")
    monkeypatch.chdir(tmp_path)
    found = presets("generate")
    assert found["mine"] == "My own." and found["tiny"].startswith("Two prompts a task")
    assert "  mine " in manual(import_job("generate"))


def test_the_manual_names_the_choices_of_every_part_with_their_options():
    text = manual(import_job("generate"))
    for choice in STRATEGIES:
        assert re.search(rf"^  search\.strategy={choice}( |$)", text, re.M)
    for line in ("  search.strategy=adaptive\n", "  judge.kind=remote\n", "    search.options.threshold "):
        assert line in text


@pytest.mark.parametrize("job", sorted(job_files()))
def test_a_manual_fits_120_columns(job, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    assert [line for line in manual(import_job(job)).splitlines() if len(line) > 120] == []


def test_a_class_in_the_current_folder_is_not_imported_and_the_error_says_how_it_is(tmp_path, monkeypatch):
    (tmp_path / "mysearch.py").write_text("class Mine: ...\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"'mysearch:Mine' .*PYTHONPATH=\. before"):
        lookup({}, "mysearch:Mine", "strategy")
    monkeypatch.syspath_prepend(tmp_path)
    assert lookup({}, "mysearch:Mine", "strategy").__name__ == "Mine"
