"""What smaller judges cost and keep: one row a judge, summed up over the pairs that all judged, a page, refusals."""

import json
from pathlib import Path

import pytest

from genloop.job import run_command
from genloop.ledger import read_rows
from genloop.models.common.measure import weight_bytes
from genloop.report.pages import write_page
from genloop.runs.measured import MeasuredJudge
from jobs import compress_judge, evaluate_judges, measure_judges
from tests.runs import ROOT, contents, refusal
from tests.unit.report.test_page import check_frame

FAST = ["warmup=0", "repeats=2", "flops_pairs=1", "reading=likelihood"]


def evaluated(out: Path, name: str, folder: Path | str, *words: str) -> Path:
    judges = f"judges={{{name}: {{kind: chat, options: {{checkpoint: {folder}}}}}}}"
    words = ("tiny", judges, "readings=[likelihood]", "limit=12", f"out={out}", *words)
    assert run_command(evaluate_judges, words) == 0
    return out


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """An untrained judge and its form in four bits, each judged in a run of its own, and a run that measured both."""
    place = tmp_path_factory.mktemp("measured")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        assert run_command(compress_judge, ["tiny", f"out={place / 'small'}"]) == 0
        evaluated(place / "a", "whole", "ckpts/tiny/qwen/vl")
        evaluated(place / "b", "small", place / "small" / "judge")
        assert run_command(measure_judges, [*words_of(place), f"out={place / 'm'}"]) == 0
        yield place


def words_of(place: Path, *words: str) -> list[str]:
    return ["tiny", f"runs=[{place / 'a'},{place / 'b'}]", "original=whole", *FAST, *words]


def test_every_judge_has_a_row_of_what_it_costs(runs):
    whole, small = read_rows(runs / "m", MeasuredJudge.from_json)
    assert (whole.judge, small.judge) == ("whole", "small") and whole.parameters == small.parameters
    assert set(whole.bytes_by_dtype) == {"float32"} and "uint8" in small.bytes_by_dtype
    assert small.checkpoint_bytes == weight_bytes(runs / "small" / "judge")
    assert whole.compression is None and small.compression["reduction"]["quantise"] == "nf4"
    assert small.flops < whole.flops  # its images are smaller
    assert all(len(row.seconds) == 2 and min(row.seconds) > 0 for row in (whole, small))


def test_what_is_kept_of_an_untrained_judge_is_undefined(runs):
    found = json.loads((runs / "m" / "summary.json").read_text())
    assert found["pairs"] == 12 and list(found["judges"]) == ["whole", "small"]
    small = found["judges"]["small"]
    assert small["verdict"] == "undefined" and small["kept"]["chance"] is None and small["kept"]["n"] == 12
    assert 0 < small["of original"]["flops"] < 1 and 0 < small["of original"]["weights"] < 1
    drawn = {f"{name}.svg" for name in ("weights", "flops", "seconds")}
    assert drawn <= {path.name for path in (runs / "m").iterdir()}


def test_the_page_shows_every_judge_and_figure_and_follows_from_the_run_alone(runs, tmp_path):
    pages = [write_page([runs / "m"], tmp_path / name) for name in "ab"]
    check_frame(pages[0])
    assert {"accuracy-weights.svg", "accuracy-weights.png"} <= {path.name for path in (tmp_path / "a").iterdir()}
    first, second = (page.read_text() for page in pages)
    assert first == second and first.count("data:image/svg+xml") == 3
    assert ">whole<" in first and ">small<" in first and "undefined" in first and "<script" not in first


def test_a_measured_judge_is_not_measured_again_and_another_goal_is(runs):
    rows = contents(runs / "m", ["rows"])
    assert run_command(measure_judges, [*words_of(runs, "criterion=raw", "goal=0.1"), f"out={runs / 'm'}"]) == 0
    assert contents(runs / "m", ["rows"]) == rows
    assert json.loads((runs / "m" / "summary.json").read_text())["goal"] == 0.1


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (["original=hole"], "original: "),
        (["reading=score"], "reading: "),
        (["adapters={other: ckpts}"], "adapters"),
        (["adapters={small: ckpts}"], "adapter_model.safetensors"),
        (["goal=2"], "goal: "),
        (["repeats=0"], "repeats: "),
        (["unit_size=2"], "unit_size: "),
        (["runs=[nowhere]"], "runs: "),
        (["runs=[]"], "runs: "),
    ],
)
def test_bad_words_are_refused(runs, tmp_path, capsys, words, key):
    assert key in refusal(measure_judges, [*words_of(runs), *words, f"out={tmp_path / 'run'}"], tmp_path, capsys)


def test_runs_of_one_name_or_of_other_pairs_are_refused(runs, tmp_path, capsys):
    twice = words_of(runs, f"runs=[{runs / 'a'},{runs / 'a'}]")
    assert "runs: " in refusal(measure_judges, [*twice, f"out={tmp_path / 'run'}"], tmp_path, capsys)
    lines = (ROOT / "configs/data/responses/pairs.jsonl").read_text().splitlines(keepends=True)
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(lines[:6]))
    images = f"data.images={ROOT / 'configs/data/responses'}"
    other = evaluated(tmp_path / "c", "other", "ckpts/tiny/qwen/vl", f"data.path={file}", images)
    words = words_of(runs, f"runs=[{runs / 'a'},{other}]")
    assert "runs: " in refusal(measure_judges, [*words, f"out={tmp_path / 'run'}"], tmp_path, capsys)
