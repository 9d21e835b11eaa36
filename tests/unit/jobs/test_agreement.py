"""agreement: from rows and people's answers to tables; audit sheets that tell nothing, and come back filled."""

import csv
import json
import re

import numpy as np
import pytest

from genloop.job import run_command
from genloop.report.audit.sheet import demands
from jobs import agreement
from tests.runs import is_laid_out, refusal
from tests.worlds.annotations import published_row, write_csv
from tests.worlds.evaluations import verdict_rows, write_evaluation, write_reference
from tests.worlds.report_runs import Sketch, write_runs

RNG = np.random.default_rng(0)
RIGHT = {tag: (RNG.random((6, 2)) < 0.5).tolist() for tag in ("two_object", "colors")}
ROWS = verdict_rows(RIGHT)
OTHER = [row | {"correct": True, "reason": ""} for row in ROWS]


def annotate(path, rows, model="m", people=5):
    """People who say what the evaluator said, all but one of them."""
    kinds = ["strict" if row["correct"] else "no" for row in rows]
    flipped = {"strict": "no", "no": "strict"}
    answers = [
        published_row(row["metadata"], row["prompt_index"], row["sample"], kind if n else flipped[kind], model)
        for row, kind in zip(rows, kinds)
        for n in range(people)
    ]
    return write_csv(path, answers)


@pytest.fixture
def place(tmp_path):
    write_evaluation(tmp_path / "a", ROWS)
    write_evaluation(tmp_path / "b", OTHER)
    annotate(tmp_path / "a.csv", ROWS)
    return tmp_path


def words(place, *more):
    return [f"runs={place / 'a'}", f"out={place / 'out'}", "num_resamples=200", *more]


def test_it_writes_and_prints_the_agreement(place, capsys):
    assert run_command(agreement, words(place, f"annotations={place / 'a.csv'}", f"other={place / 'b'}")) == 0
    text = (place / "out" / "agreement.md").read_text()
    assert is_laid_out(capsys.readouterr().out, text)
    found = json.loads((place / "out" / "agreement.json").read_text())
    everything = found["tasks"][-1]
    assert everything["agreement"]["estimate"] == everything["kappa"]["estimate"] == 1
    assert found["evaluators"] == ["a", "b"] and found["person"]["estimate"] == pytest.approx(0.8)
    share = sum(row["correct"] for row in ROWS) / len(ROWS)
    assert found["paired"][-1]["agreement"]["estimate"] == pytest.approx(share - 1)
    assert [margin["majority"] for margin in found["margins"]] == [4]


def test_several_models_and_genevals_own_rows_are_taken_together(place):
    theirs = write_reference(place / "results.jsonl", OTHER)
    more = annotate(place / "b.csv", ROWS, "n")
    assert (
        run_command(
            agreement,
            [
                f"runs=[{place / 'a'},{theirs}]",
                f"annotations=[{place / 'a.csv'},{more}]",
                f"out={place / 'out'}",
                "num_resamples=100",
            ],
        )
        == 0
    )
    found = json.loads((place / "out" / "agreement.json").read_text())
    assert found["tasks"][-1]["images"] == 2 * len(ROWS)
    assert found["tasks"][-1]["prompts"] == 12


def test_an_audit_sheet_is_balanced_blind_and_comes_back(tmp_path):
    run = write_runs(tmp_path, "a", Sketch(prompts_per_task=5, seed=3))
    made = [f"runs={run}", "sheet=12", f"out={tmp_path / 'audit'}"]
    assert run_command(agreement, made) == 0
    page, sheet = ((tmp_path / "audit" / name).read_bytes() for name in ("audit.html", "audit.csv"))
    assert run_command(agreement, made) == 0
    assert (tmp_path / "audit" / "audit.html").read_bytes() == page
    rows = list(csv.DictReader(sheet.decode().splitlines()))
    tags = [row["tag"] for row in rows]
    assert len(rows) == 12 and {tags.count(tag) for tag in tags} == {2} and tags != sorted(tags)
    assert not re.search(r"correct|expected|wrong", sheet.decode()) and "expected" not in page.decode()
    assert not re.search(r'(?:src|href)="(?!data:|audit\.csv)', page.decode())
    for row in rows:
        row["answer"] = "yes"
    filled = write_csv(tmp_path / "filled.csv", rows)
    assert run_command(agreement, [f"runs={run}", f"annotations={filled}", f"out={tmp_path / 'out'}"]) == 0
    found = json.loads((tmp_path / "out" / "agreement.json").read_text())
    assert found["tasks"][-1]["images"] == 12 and found["tasks"][-1]["human"]["estimate"] == 1
    assert found["tasks"][-1]["agreement"] == found["tasks"][-1]["machine"]


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "two\nlines"])
def test_no_cell_of_an_audit_sheet_is_a_formula(tmp_path, text):
    run = write_runs(tmp_path, "a", Sketch(prompts_per_task=1, texts={i: f"{text} {i}" for i in range(6)}))
    assert run_command(agreement, [f"runs={run}", "sheet=6", f"out={tmp_path / 'audit'}"]) == 0
    page = (tmp_path / "audit" / "audit.html").read_text()
    cells = json.loads(re.findall(r'type="application/json">(.*?)</script>', page)[0])["rows"]
    with open(tmp_path / "audit" / "audit.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for cell in (*(cell for row in rows for cell in row.values()), *(cell for row in cells for cell in row)):
        assert not str(cell).startswith(("=", "+", "-", "@", "\t", "\r"))
    filled = write_csv(tmp_path / "filled.csv", [row | {"answer": "yes"} for row in rows])
    assert run_command(agreement, [f"runs={run}", f"annotations={filled}", f"out={tmp_path / 'out'}"]) == 0


def test_another_seed_draws_other_images(tmp_path):
    run = write_runs(tmp_path, "a", Sketch(prompts_per_task=9))
    sheets = set()
    for seed in (0, 1):
        out = tmp_path / f"audit{seed}"
        assert run_command(agreement, [f"runs={run}", "sheet=6", f"seed={seed}", f"out={out}"]) == 0
        sheets.add((out / "audit.csv").read_text())
    assert len(sheets) == 2


def test_a_browser_does_not_take_the_answers_of_one_sheet_for_those_of_another(tmp_path):
    """Two models' runs have the same names, prompts and places of images; the images differ."""
    kept = set()
    for seed in (0, 1, 1):
        run = write_runs(tmp_path / f"{len(kept)}{seed}", "a", Sketch(prompts_per_task=1, seed=seed))
        out = tmp_path / f"audit{len(kept)}{seed}"
        assert run_command(agreement, [f"runs={run}", "sheet=6", f"out={out}"]) == 0
        page = (out / "audit.html").read_text()
        assert 'key = "audit " + sheet.digest' in page
        kept.add(re.search(r'"digest": "(\w{16})"', page)[1])
    assert len(kept) == 2


def test_one_persons_agreement_with_itself_is_not_told(place):
    alone = annotate(place / "one.csv", ROWS, people=1)
    assert run_command(agreement, words(place, f"annotations={alone}")) == 0
    text = (place / "out" / "agreement.md").read_text()
    assert "One annotator agrees" not in text and "| 1 : 0 | " in text and "| 24 of 12 prompts | " in text
    assert "-0.0" not in text


def test_demands_say_what_genevals_rules_ask_for():
    counting = {"include": [{"class": "bus", "count": 3}], "exclude": [{"class": "bus", "count": 4}]}
    assert demands(counting) == ["exactly three buses"]
    placed = {"include": [{"class": "dog", "count": 1, "color": "red"}, {"class": "tie", "count": 2}]}
    placed["include"][1]["position"] = ["left of", 0]
    assert demands(placed) == ["at least one red dog", "at least two ties", "the tie is to the left of the dog"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "give either annotations=[CSV,...] to measure, or sheet=N"),
        (["annotations=none.csv"], "annotations: no such file: none.csv"),
        (["annotations=[{a},{a}]"], "found 2 files for 1 `runs`"),
        (["annotations={a}", "other=[{r},{r}]"], "other: found 2 for 1 `runs`"),
        (["annotations={a}", "rule=lose"], "rule: input should be 'loose' or 'strict', found 'lose'"),
        (["annotations={x}"], "has answers; is the sheet not filled yet, or are these files of other images?"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(place, capsys, more, message):
    annotate(place / "x.csv", [row | {"prompt_index": 77} for row in ROWS])
    known = {"a": place / "a.csv", "r": place / "b", "x": place / "x.csv"}
    assert message in refusal(agreement, words(place, *(word.format(**known) for word in more)), place, capsys)
