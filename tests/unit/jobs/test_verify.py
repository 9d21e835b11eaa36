"""The verify job finds what was changed, removed or left unfinished."""

import shutil

import pytest

from genloop.distributed import World
from genloop.job import parse, prepare, run_command
from jobs import generate, make_shapes, train_tokenizer, verify


@pytest.fixture
def run(tmp_path):
    config = parse(generate, ["tiny", f"out={tmp_path / 'run'}", "limit=4", "sampling.steps=2", "unit_size=2"])
    generate.main(config, World(), prepare(generate, config).checked)
    return tmp_path / "run"


def check(run) -> int:
    try:
        return run_command(verify, [f"run={run}", f"out={run.parent / 'verified'}"])
    except SystemExit as end:
        return int(end.code or 0)


def test_a_clean_run_passes(run, capsys):
    assert check(run) == 0
    assert "8 rows, 14 files and 0 checkpoints checked, 0 bad, 0 doubled, 0 units unfinished" in capsys.readouterr().out


def test_a_changed_and_a_missing_image_are_named(run, capsys):
    changed, missing = run / "images/00001/samples/0000.png", run / "images/00003/samples/0001.png"
    changed.write_bytes(changed.read_bytes() + b" ")
    missing.unlink()
    assert check(run) == 1
    captured = capsys.readouterr()
    assert "8 rows, 14 files and 0 checkpoints checked, 2 bad" in captured.out
    assert "images/00001/samples/0000.png changed; images/00003/samples/0001.png missing" in captured.err


@pytest.mark.parametrize(
    ("file", "problem"),
    [
        ("images/00001/metadata.jsonl", "changed"),
        ("images/00001/samples/0002.png", "unknown"),
        ("images/00009/metadata.jsonl", "unknown"),
        ("paths/00001/0000.png", "changed"),
        ("rows/00001.jsonl", "changed"),
        ("checksums/00001", "missing"),
        ("images/00001/.DS_Store", ""),
    ],
)
def test_files_that_no_row_names_are_checked_too(tmp_path, capsys, file, problem):
    run = tmp_path / "run"
    words = ["tiny", f"out={run}", "limit=2", "images_per_prompt=2", "sampling.steps=2", "unit_size=1"]
    searching = ["search.strategy=best_of_n", "search.n=2", "judge.kind=shapes_oracle", "previews=judged"]
    assert run_command(generate, words + searching) == 0
    place = run / file
    place.parent.mkdir(parents=True, exist_ok=True)
    if problem == "missing":
        place.unlink()
    elif problem == "changed":
        place.write_bytes(place.read_bytes().replace(b'"prompt"', b'"prompt" ', 1) + b" " * (place.suffix == ".png"))
    else:
        place.write_bytes(b"more")
    assert check(run) == (1 if problem else 0)
    assert f"{file} {problem}" in capsys.readouterr().err if problem else True


@pytest.mark.parametrize("file", ["images/00001/samples/0000.png", "rows/00001.jsonl", "checksums/00001"])
def test_what_cannot_be_read_is_one_line_among_the_others(run, capsys, file):
    (run / file).unlink()
    (run / file).mkdir()
    assert check(run) == 1
    printed = capsys.readouterr()
    assert f"{file} unreadable" in printed.err and "Traceback" not in printed.err
    assert " 1 bad" in printed.out or file.startswith("checksums")


def test_a_run_without_checksums_is_checked_by_its_rows(run, capsys):
    shutil.rmtree(run / "checksums")
    assert check(run) == 0
    assert "8 rows, 8 files and 0 checkpoints checked, 0 bad" in capsys.readouterr().out


def test_a_row_that_names_a_file_elsewhere_is_damaged(run, capsys):
    rows = run / "rows" / "00001.jsonl"
    rows.write_text(rows.read_text().replace("images/00002", "../other/00002", 1))
    assert check(run) == 1
    assert "rows/00001.jsonl unreadable" in capsys.readouterr().err


def test_an_unfinished_run_does_not_pass(run, capsys):
    (run / "rows" / "00001.jsonl").unlink()
    assert check(run) == 1
    assert "1 units unfinished" in capsys.readouterr().out


def test_a_doubled_row_does_not_pass(run, capsys):
    rows = run / "rows" / "00001.jsonl"
    rows.write_text(rows.read_text() + rows.read_text().splitlines()[0] + "\n")
    assert check(run) == 1
    assert "1 doubled" in capsys.readouterr().out


def test_an_empty_row_file_does_not_pass(run, capsys):
    (run / "rows" / "00001.jsonl").write_text("")
    assert check(run) == 1
    assert "rows/00001.jsonl empty" in capsys.readouterr().err


def test_shards_are_checked_by_their_rows(tmp_path, capsys):
    run = tmp_path / "run"
    assert run_command(make_shapes, ["tiny", f"out={run}", "num_samples=8", "unit_size=4"]) == 0
    shard = run / "shards" / "00001.tar"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1] + b"x")
    assert check(run) == 1
    captured = capsys.readouterr()
    assert "2 rows, 4 files and 0 checkpoints checked, 1 bad" in captured.out
    assert "shards/00001.tar changed" in captured.err
    shard.write_bytes(whole)
    assert run_command(verify, [f"run={run}", f"out={tmp_path / 'again'}"]) == 0


def test_checkpoints_are_checked_by_their_manifests(tmp_path, capsys):
    run = tmp_path / "run"
    assert run_command(train_tokenizer, ["shapes", f"out={run}", "num_scenes=0"]) == 0
    weights = next((run / "tokenizer").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1])
    assert check(run) == 1
    captured = capsys.readouterr()
    assert "0 files and 1 checkpoints checked, 1 bad" in captured.out
    assert "tokenizer: files missing or changed since they were written" in captured.err


def test_a_folder_that_is_no_run_is_refused(tmp_path, capsys):
    (tmp_path / "other").mkdir()
    assert check(tmp_path / "other") == 2
    assert "is not a run folder" in capsys.readouterr().err


def test_a_run_that_changed_after_its_check_is_not_passed_from_memory(run, capsys):
    assert check(run) == 0
    image = run / "images/00001/samples/0000.png"
    image.write_bytes(image.read_bytes() + b" ")
    assert check(run) == 2
    assert "another content of `run`; use another `out`" in capsys.readouterr().err


def test_a_damaged_row_is_named(run, capsys):
    path = run / "rows" / "00001.jsonl"
    path.write_bytes(path.read_bytes()[:-300] + b"\n\xff\n")
    assert check(run) == 1
    printed = capsys.readouterr()
    assert "2 bad, 0 doubled" in printed.out
    assert "rows/00001.jsonl unreadable" in printed.err


def test_a_prompt_may_hold_any_separator_but_a_new_line(tmp_path, capsys):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("one \u2028 two \x85 three \x0b four\n", encoding="utf-8")
    words = ["tiny", f"prompts={prompts}", "metadata=null", f"out={tmp_path / 'run'}", "sampling.steps=2"]
    assert run_command(generate, words) == 0
    assert check(tmp_path / "run") == 0
    assert "2 rows, 4 files and 0 checkpoints checked, 0 bad" in capsys.readouterr().out
