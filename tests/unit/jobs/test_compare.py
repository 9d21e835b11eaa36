"""compare: tables, figure and flips of two evaluations; what may not be compared is refused in one line."""

import copy
import json
from xml.etree import ElementTree

import numpy as np
import pytest

from genloop.job import run_command
from jobs import compare
from tests.runs import is_laid_out, refusal
from tests.worlds.evaluations import CARD, verdict_rows, write_evaluation, write_reference

RNG = np.random.default_rng(1)
A = {tag: (RNG.random((8, 2)) < 0.3).tolist() for tag in ("single_object", "position")}
B = {tag: (RNG.random((8, 2)) < 0.8).tolist() for tag in A}
RESULTS = ("comparison.json", "comparison.md", "forest.svg")


@pytest.fixture
def runs(tmp_path):
    card = copy.deepcopy(CARD)
    card["images"]["guidance"] = 5.0
    return write_evaluation(tmp_path / "a", verdict_rows(A)), write_evaluation(tmp_path / "b", verdict_rows(B), card)


def words(runs, out, *more):
    return [f"a={runs[0]}", f"b={runs[1]}", f"out={out}", "num_resamples=200", *more]


def test_it_writes_and_prints_what_it_found(tmp_path, runs, capsys):
    assert run_command(compare, words(runs, tmp_path / "out", "allow=guidance")) == 0
    text = (tmp_path / "out" / "comparison.md").read_text()
    assert is_laid_out(capsys.readouterr().out, text)
    assert "The runs differ in guidance (2.0 / 5.0)." in text
    found = json.loads((tmp_path / "out" / "comparison.json").read_text())
    right = [sum(map(sum, side["position"])) / 16 for side in (A, B)]
    position = next(change for change in found["changes"] if change["task"] == "position")
    assert (position["a"]["estimate"], position["b"]["estimate"]) == tuple(right)
    figure = ElementTree.fromstring((tmp_path / "out" / "forest.svg").read_text())
    assert "position" in "".join(figure.itertext())


@pytest.mark.parametrize("intervals", ["wilson", "bootstrap"])
def test_the_same_command_gives_the_same_bytes_wherever_the_runs_lie(tmp_path, runs, intervals):
    more = ["allow=[guidance]", f"intervals={intervals}"]
    assert run_command(compare, words(runs, tmp_path / "x", *more)) == 0
    before = [(tmp_path / "x" / name).read_bytes() for name in RESULTS]
    assert run_command(compare, words(runs, tmp_path / "x", *more)) == 0
    assert [(tmp_path / "x" / name).read_bytes() for name in RESULTS] == before
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for run in runs:
        run.rename(moved / run.name)
    assert run_command(compare, words([moved / run.name for run in runs], tmp_path / "x", *more)) == 0
    assert [(tmp_path / "x" / name).read_bytes() for name in RESULTS] == before


def test_a_result_file_of_genevals_is_compared_when_its_silence_is_allowed(tmp_path, runs, capsys):
    theirs = write_reference(tmp_path / "results.jsonl", verdict_rows(B))
    pair = (runs[0], theirs)
    line = refusal(compare, words(pair, tmp_path / "out"), tmp_path, capsys)
    assert "tell how their images were made (told / no card); to compare anyway: allow=[card]" in line
    assert run_command(compare, words(pair, tmp_path / "out", "allow=[card]")) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, "differ in guidance (2.0 / 5.0); to compare anyway: allow=[guidance]"),
        ({"allow": "guidanc"}, "allow: unknown condition 'guidanc'; did you mean 'guidance'?"),
        ({"a": "nowhere"}, "nowhere is neither a run of evaluate (no run.json) nor a result file"),
        ({"intervals": "bayes"}, "intervals: input should be 'wilson' or 'bootstrap', found 'bayes'"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(tmp_path, runs, capsys, change, message):
    more = [f"{key}={value}" for key, value in change.items()]
    assert message in refusal(compare, words(runs, tmp_path / "out", *more), tmp_path, capsys)


def test_runs_of_other_prompts_are_refused(tmp_path, runs, capsys):
    fewer = write_evaluation(tmp_path / "c", verdict_rows({tag: found[:6] for tag, found in A.items()}))
    line = refusal(compare, words((runs[0], fewer), tmp_path / "out"), tmp_path, capsys)
    assert "coverage (32 images of 16 prompts / 24 images of 12 prompts, 20 in both)" in line
    assert run_command(compare, words((runs[0], fewer), tmp_path / "out", "allow=coverage")) == 0
    assert "left out: 12 of a, 4 of b" in (tmp_path / "out" / "comparison.md").read_text()
