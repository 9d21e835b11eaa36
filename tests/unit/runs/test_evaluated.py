"""Damaged runs, result files and answers are refused by comparisons, agreement and reports in one line."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from genloop.job import run_command
from genloop.report import write_report
from genloop.runs.evaluations import read_result_file
from genloop.runs.generated import read_generated
from jobs import agreement, compare
from tests.runs import refusal
from tests.worlds.annotations import published_row, write_csv
from tests.worlds.evaluations import verdict_rows, write_reference
from tests.worlds.report_runs import Sketch, write_runs

ROWS = verdict_rows({tag: [[True, False]] * 2 for tag in ("colors", "position")})
Change = Callable[[Path], object]


@pytest.fixture
def run(tmp_path):
    """A run of evaluate over six images of a run of generate, in two units."""
    return write_runs(tmp_path, "a", Sketch(prompts_per_task=1))


def first_row(**changes: Any) -> Change:
    """Other values in the first row; ... for a key that is taken out."""

    def change(run: Path) -> None:
        path = run / "rows" / "00000.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        rows[0] = {key: value for key, value in {**rows[0], **changes}.items() if value is not ...}
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    return change


def written(name: str, text: str) -> Change:
    return lambda run: (run / name).write_text(text)


DAMAGES: dict[str, tuple[Change, str]] = {
    **{
        f"a row without {key}": (
            first_row(**{key: ...}),
            rf"00000.jsonl:1: not a row \({key}: field req",
        )
        for key in ("prompt_index", "sample", "prompt", "tag", "correct", "reason")
    },
    **{
        f"an image at {place}": (first_row(image=place), r"00000.jsonl:1: not a row \(image: must be a path below")
        for place in ("/etc/passwd.png", "../other/0.png", "a/../../b.png", "a\0b.png")
    },
    **{
        f"a clause of {list(clause.values())}": (
            first_row(metadata={"tag": "single_object", "include": [clause]}),
            r"not a row \(metadata: include",
        )
        for clause in (
            {"count": 1},
            {"class": 5, "count": 1},
            {"class": "dog"},
            {"class": "dog", "count": "1"},
            {"class": "dog", "count": 1, "position": ["above", 7]},
            {"class": "dog", "count": 1, "position": ["above"]},
        )
    },
    **{
        f"colours of clause {number}": (
            first_row(colors=[{"clause": number, "named": ["red"], "margins": [0.5]}]),
            rf"not a row \(colors: clause {number} of 1",
        )
        for number in (1, -1)
    },
    "a verdict that is a text": (first_row(correct="false"), r"\(correct: input should be a valid boolean"),
    "an index that is a text": (first_row(prompt_index="x"), r"\(prompt_index: input should be a valid integer"),
    "metadata that is a number": (first_row(metadata=5), r"not a row \(metadata: "),
    "the metadata of another task": (
        first_row(metadata={"tag": "new"}),
        r"\(tag is 'single_object', its metadata's 'new'\)",
    ),
    "boxes of two numbers": (first_row(details={"star": [[1, 2]]}), r"\(details\.star\.0: list should have at least 5"),
    "colours that are numbers": (first_row(colors=[5]), r"\(colors\.0: "),
    "an image twice": (first_row(prompt_index=1, metadata=None), "00000.jsonl:2: a second row of prompt 1, sample 0"),
    "a row that is a list": (written("rows/00000.jsonl", "[1]\n"), r"00000.jsonl:1: not a row \(no JSON object\)"),
    "an empty file of rows": (written("rows/00000.jsonl", ""), "holds 2 rows, not 6; remove the files of rows/"),
    "a fingerprint of texts": (
        written("run.json", '{"job": 1, "keys": 2, "inputs": 3, "digest": 4}'),
        "run.json is damaged",
    ),
}


@pytest.mark.parametrize("name", list(DAMAGES))
def test_damaged_runs_are_compared_and_reported_by_nobody(run, tmp_path, capsys, name):
    change, message = DAMAGES[name]
    change(run)
    with pytest.raises(ValueError, match=message) as refused:
        write_report([run], tmp_path / "report")
    assert "\n" not in str(refused.value) and not (tmp_path / "report").exists()
    line = refusal(compare, [f"a={run}", f"b={run}", f"out={tmp_path / 'out'}", "allow=[card]"], tmp_path, capsys)
    assert str(refused.value) in line


def test_a_run_with_failed_units_is_not_compared(run, tmp_path, capsys):
    (run / "rows" / "00001.jsonl").unlink()
    (run / "failed").mkdir(exist_ok=True)
    (run / "failed" / "00001.json").write_text('{"attempts": 1}')
    line = refusal(compare, [f"a={run}", f"b={run}", f"out={tmp_path / 'out'}", "allow=[card]"], tmp_path, capsys)
    assert "has 1 failed units; evaluate again with retry_failed=true" in line


@pytest.mark.parametrize("text", ["{", "[]", '{"images": 5}', '{"detector": "shapes"}'])
def test_a_damaged_card_is_not_taken_for_a_missing_one(run, tmp_path, capsys, text):
    (run / "card.json").write_text(text)
    line = refusal(compare, [f"a={run}", f"b={run}", f"out={tmp_path / 'out'}", "allow=[card]"], tmp_path, capsys)
    assert "card.json is damaged: not a card; remove it and run the evaluation again" in line


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("config.yaml", "seed: 0\n", r"config\.yaml: .*`images`"),
        ("../a/rows/00000.jsonl", '{"image": "x"}\n', r"a/rows/00000\.jsonl:1: not a row"),
        ("../a/rows/00000.jsonl", '{"image": "/etc/x.png"}\n', r"a/rows/00000\.jsonl:1: not a row"),
    ],
)
def test_a_report_names_what_is_damaged_around_the_rows(run, tmp_path, name, text, message):
    (run / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        write_report([run, run], tmp_path / "report")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (written("rows/00000.jsonl", ""), "a holds 2 rows, not 6; remove the files of rows/"),
        (first_row(prompt_index=1), r"00000\.jsonl:2: a second row of prompt 1, sample 0"),
    ],
)
def test_rows_of_generate_that_are_short_or_doubled_are_refused(run, change, message):
    made = run.with_name("a")
    change(made)
    with pytest.raises(ValueError, match=message):
        list(read_generated(made))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("grid", grid) for grid in ([-1, 6], [0, 0], [6, 7], [10**9, 10**9])),
        *(("revealed_at", text) for text in ("", "AAA=", "!", "A")),
        ("num_steps", -4),
        ("previews", "../../x.png"),
    ],
)
def test_a_report_refuses_rows_of_generate_that_do_not_fit_together(run, tmp_path, key, value):
    first_row(**{key: value})(run.with_name("a"))
    with pytest.raises(ValueError, match=rf"a/rows/00000\.jsonl:1: not a row \(({key}|tokens)"):
        write_report([run], tmp_path / "report")


@pytest.mark.parametrize("text", ["\u00ff", "o", "o" * 1_000_000, "11"])
def test_a_mask_that_is_none_is_named_by_its_image(run, tmp_path, text):
    box = [1.0, 1.0, 9.0, 9.0, 0.5]
    first_row(details={"circle": [box]}, masks={"circle": [text]}, size=[24, 24])(run)
    with pytest.raises(ValueError, match=r"masks of .*00000/samples/0000\.png in its row: ") as refused:
        write_report([run], tmp_path / "report")
    assert len(str(refused.value)) < 400
    first_row(size=[10**6, 10**6])(run)
    assert write_report([run], tmp_path / "report").is_file()  # of another size than the image: not drawn


@pytest.mark.parametrize("name", ["env.json", "plan.json", "metrics.jsonl", "rows/notes.jsonl", "rows/00000 (1).jsonl"])
@pytest.mark.parametrize("text", ["{", "[1]", '{"units": "x", "packages": 5, "gpus": 1, "git": 2}'])
def test_no_number_depends_on_what_lies_around_the_rows(run, tmp_path, name, text):
    before = (write_report([run], tmp_path / "before").parent / "table.md").read_bytes()
    (run / name).write_text(text)
    assert (write_report([run], tmp_path / "report").parent / "table.md").read_bytes() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *(({key: ...}, f"results.jsonl:1: not a row ({key}: ") for key in ("tag", "correct", "reason")),
        ({"correct": None}, "results.jsonl:1: not a row (correct: "),
        ({"metadata": 5}, "results.jsonl:1: not a row (metadata: "),
        ({"filename": "0/samples/1.png"}, "results.jsonl:2: a second row of prompt 0, sample 1; keep one"),
    ],
)
def test_damaged_result_files_are_refused_by_their_line(tmp_path, capsys, change, message):
    path = write_reference(tmp_path / "results.jsonl", ROWS)
    first, *others = path.read_text().splitlines()
    row = {key: value for key, value in {**json.loads(first), **change}.items() if value is not ...}
    path.write_text("\n".join([json.dumps(row), *others]))
    assert message in refusal(compare, [f"a={path}", f"b={path}", f"out={tmp_path / 'out'}"], tmp_path, capsys)


@pytest.mark.parametrize("name", ["1" * 1_000_000, "1/" * 500_000, "1/a" * 500_000, f"{'1' * 5000}/samples/0.png"])
def test_a_file_name_of_a_megabyte_is_refused_in_linear_time(tmp_path, name):
    path = tmp_path / "results.jsonl"
    path.write_text(json.dumps({"filename": name}))
    with pytest.raises(ValueError, match=r"results\.jsonl:1: not a row of GenEval's result file"):
        list(read_result_file(path))


def answers() -> list[dict[str, str]]:
    return [published_row(row["metadata"], row["prompt_index"], row["sample"], "strict") for row in ROWS]


def consensus(**changes: str) -> list[dict[str, str]]:
    known = {"n_loose": "3", "n_strict": "2", "n_annotators": "5", **changes}
    return [{"prompt_id": str(row["prompt_index"]), "image_id": str(row["sample"]), **known} for row in ROWS]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{**row, "HITId": "x" * 200_000} for row in answers()], "x.csv is no CSV file: field larger than field limit"),
        (
            [{key: value for key, value in row.items() if key != "Input.image_id"} for row in answers()],
            "has the column Input.prompt_id but not Input.image_id",
        ),
        (
            [{key: value for key, value in row.items() if key != "n_annotators"} for row in consensus()],
            "has the column n_loose but not n_annotators",
        ),
        (consensus(n_loose="x"), "x.csv:2: n_loose must be a whole number, found 'x'"),
        (consensus(n_loose="-2"), "x.csv:2: n_loose must be a whole number, found '-2'"),
        (consensus(n_loose="9"), "x.csv:2: n_loose is 9, more than the 5 of n_annotators"),
    ],
)
def test_damaged_answers_are_refused(tmp_path, capsys, rows, message):
    verdicts = write_reference(tmp_path / "results.jsonl", ROWS)
    path = write_csv(tmp_path / "x.csv", rows)
    words = [f"runs={verdicts}", f"annotations={path}", f"out={tmp_path / 'out'}"]
    assert message in refusal(agreement, words, tmp_path, capsys)


@pytest.mark.parametrize("count", ["inf", "1e400", "nan", "two", ""])
def test_a_count_that_is_no_number_was_not_seen(tmp_path, count):
    verdicts = write_reference(tmp_path / "results.jsonl", ROWS)
    path = write_csv(tmp_path / "x.csv", [{**row, "Answer.task-count-0": count} for row in answers()])
    words = [f"runs={verdicts}", f"annotations={path}", f"out={tmp_path / 'out'}", "num_resamples=100"]
    assert run_command(agreement, words) == 0
    found = json.loads((tmp_path / "out" / "agreement.json").read_text())
    assert found["tasks"][-1]["human"]["estimate"] == 0


def test_a_sheet_of_images_that_are_gone_is_refused_before_anything_is_written(run, tmp_path, capsys):
    shutil.rmtree(run.with_name("a"))
    line = refusal(agreement, [f"runs={run}", "sheet=4", f"out={tmp_path / 'out'}"], tmp_path, capsys)
    assert "none of its images is where it was; an audit needs them" in line
