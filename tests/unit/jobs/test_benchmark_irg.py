"""The benchmark of critics: what is right by construction comes out right, rows are resumable, bad input is refused."""

from pathlib import Path

import pytest

from genloop.data.shards import write_shard
from genloop.job import run_command
from genloop.ledger import read_rows
from genloop.reading import read_json
from jobs import benchmark_irg, build_irg, generate
from tests.runs import refusal, rows_text
from tests.unit.report.test_page import check_frame
from tests.worlds.tiny_qwen import qwen_folder
from tests.worlds.traces import trace

KINDS = ("clean", "dark", "undone", "content")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("irg") / "run"
    for split, seeds in (("train", range(3)), ("test", range(10, 13))):
        samples = [trace(kind, seed, split).sample for kind in KINDS for seed in seeds]
        write_shard(run / "shards" / split / "00000.tar", samples)
    return run


def words(corpus: Path, out: Path, *more: str) -> list[str]:
    majority = f"{{kind: majority, options: {{shards: {corpus}, empty: false}}}}"
    return ["tiny", f"source={corpus}", f"out={out}", f"critics={{rules: rules, majority: {majority}}}", *more]


@pytest.fixture(scope="module")
def done(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("benchmark") / "run"
    assert run_command(benchmark_irg, words(corpus, out)) == 0
    return out


def test_the_rules_agree_with_themselves_and_beat_the_majority(done: Path) -> None:
    found = read_json(done / "summary.json")
    rules, majority = found["critics"]["rules"], found["critics"]["majority"]
    for measure in ("macro-F1 against rules", "exact set against rules", "valid format", "faithful numbers"):
        assert (rules[measure]["estimate"], rules[measure]["n"] > 0) == (1.0, True)
    assert rules["severity error"]["estimate"] == 0 == rules["false alarms on clean images"]["estimate"]
    assert rules["severity error"]["low"] is None  # equal numbers tell nothing of other scenes
    assert majority["false alarms on clean images"]["estimate"] == 1
    difference = found["over base"]["majority"]["macro-F1 against rules"]
    assert difference["low"] <= difference["estimate"] < 0
    assert rules["composite after round 2"]["estimate"] > rules["composite before"]["estimate"]
    assert 0 < rules["actions that gain"]["low"] < rules["actions that gain"]["estimate"]


def test_what_actions_do_is_measured_and_never_kept_when_it_is_worse(done: Path) -> None:
    rows = list(read_rows(done))
    assert len(rows) == 2 * 12
    for row in rows:
        assert row["composite"] == sorted(row["composite"]) and len(row["composite"]) == 3
        assert sum(one["gained"] for one in row["rounds"]) == len(set(row["composite"])) - 1
    assert any(one["executed"] and not one["gained"] for row in rows for one in row["rounds"])


def test_the_page_holds_every_table_and_needs_nothing_else(done: Path) -> None:
    page = (done / "index.html").read_text()
    check_frame(done / "index.html")
    assert page.count("data:image/") == 8 and page.index("faults: ") < page.index("<table>")
    for title in ("Critics", "Paired differences", "by issue"):
        assert title in page and title in (done / "table.md").read_text()


def test_units_and_restarts_change_nothing(done: Path, corpus: Path, tmp_path: Path) -> None:
    assert run_command(benchmark_irg, words(corpus, tmp_path / "run", "unit_size=5")) == 0
    assert rows_text(tmp_path / "run") == rows_text(done)
    assert (tmp_path / "run" / "summary.json").read_bytes() == (done / "summary.json").read_bytes()
    (tmp_path / "run" / "rows" / "00001.jsonl").unlink()
    assert run_command(benchmark_irg, words(corpus, tmp_path / "run", "unit_size=5")) == 0
    assert rows_text(tmp_path / "run") == rows_text(done)


def test_a_model_without_training_fails_the_format_and_changes_nothing(corpus: Path, tmp_path: Path) -> None:
    options = f"{{checkpoint: {qwen_folder(tmp_path / 'qwen')}, attempts: 1, max_new_tokens: 4}}"
    critics = f"critics={{rules: rules, raw: {{kind: qwen, options: {options}}}}}"
    assert run_command(benchmark_irg, [*words(corpus, tmp_path / "run", "limit=2"), critics]) == 0
    raw = read_json(tmp_path / "run" / "summary.json")["critics"]["raw"]
    assert raw["valid format"]["estimate"] == 0 and raw["executed actions"]["n"] == 0
    assert raw["exact set against rules"]["estimate"] == 0 and raw["false alarms on clean images"]["n"] == 0
    assert raw["composite before"]["estimate"] == raw["composite after round 2"]["estimate"]


def test_guided_generation_is_compared_at_equal_compute(corpus: Path, tmp_path: Path) -> None:
    few = ["refine_tiny", "limit=3", "sampling.steps=6", "search.n=1", "search.options.rounds=2"]
    assert run_command(generate, [*few, f"out={tmp_path / 'guided'}"]) == 0
    assert run_command(generate, [*few, "search={strategy: best_of_n, n: 4}", f"out={tmp_path / 'pool'}"]) == 0
    runs = [f"guided={tmp_path / 'guided'}", f"pool={tmp_path / 'pool'}", f"refined={tmp_path / 'pool'}"]
    assert run_command(benchmark_irg, [*words(corpus, tmp_path / "run", "limit=1"), *runs]) == 0
    guided = read_json(tmp_path / "run" / "summary.json")["guided"]
    assert (guided["images"], guided["below start"]) == (3, 0)
    scores, costs = ([one[key] for one in guided["rounds"]] for key in ("score", "cost in images"))
    assert scores == sorted(scores) and costs == sorted(costs) and costs[0] == 1
    assert (
        guided["rounds"][0]["score"] == guided["rounds"][0]["difference"]["estimate"] + guided["rounds"][0]["best of k"]
    )
    assert "Guided generation" in (tmp_path / "run" / "index.html").read_text()


BAD = {
    "no shards": (["source=configs"], "configs"),
    "no such split": (["split=dev"], "dev"),
    "no such base": (["base=rule"], "base"),
    "no such critic": (["critics.x=rule"], "critics.x"),
    "no checkpoint": (["critics.x={kind: qwen, options: {checkpoint: nowhere}}"], "critics.x"),
    "a run without the other": (["guided=configs"], "pool"),
    "no run": (["guided=configs", "pool=configs"], "guided"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_in_one_line(
    name: str, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more, named = BAD[name]
    assert named in refusal(benchmark_irg, words(corpus, tmp_path / "run", *more), tmp_path, capsys)


def test_the_tiny_corpus_holds_out_what_the_tiny_benchmark_measures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_command(build_irg, ["tiny", "resolution=64"]) == 0
    assert run_command(benchmark_irg, ["tiny"]) == 0
    found = read_json(tmp_path / "runs" / "benchmark_irg-tiny" / "summary.json")
    assert found["critics"]["rules"]["valid format"]["n"] > 0
