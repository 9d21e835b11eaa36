"""scaling_curve: right candidates are found, curves are those of the pools, bad input is refused."""

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from genloop.job import run_command
from genloop.ledger import read_rows
from genloop.records import pack_tokens
from genloop.shapes.prompts import prompt_set
from genloop.stats.best_of_k import best_of_k, ceiling
from genloop.stats.scaling import scale
from jobs import scaling_curve
from tests.runs import contents, is_laid_out, refusal, start
from tests.worlds.pool_runs import NUM_STEPS, write_pool
from tests.worlds.report_runs import Sketch, write_runs

PROMPTS = prompt_set("test", 0, 2)
RESULTS = ("curve.json", "table.md", "curve.svg")
RNG = np.random.default_rng(0)
RIGHT = (RNG.random((12, 2, 4)) < 0.4).tolist()
SCORES = (RNG.random((12, 2, 4)) + 0.5 * np.array(RIGHT)).round(2).tolist()


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    """12 prompts, 2 images each, best of 4."""
    return write_pool(tmp_path_factory.mktemp("pools") / "pool", PROMPTS, RIGHT, SCORES)


def words(run: Path, out: Path, *more: str) -> list[str]:
    return ["shapes", f"source={run}", f"out={out}", *more]


def run(pool: Path, out: Path, *more: str) -> Path:
    assert run_command(scaling_curve, words(pool, out, *more)) == 0
    return out


def results(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in RESULTS}


def curves(out: Path) -> dict[str, dict]:
    return {curve["judge"]: curve for curve in json.loads((out / "curve.json").read_text())["curves"]}


def mean_of_tasks(values: np.ndarray) -> list[float]:
    """Values (12, K), two prompts a task."""
    return values.reshape(6, 2, -1).mean(axis=(0, 1)).tolist()


def test_rows_say_which_candidates_are_right_and_what_every_judge_says(pool, tmp_path):
    rows = list(read_rows(run(pool, tmp_path / "run", "judges.oracle.kind=shapes_oracle")))
    assert [(row["prompt_index"], row["sample"]) for row in rows] == [(i, k) for i in range(12) for k in range(2)]
    for row in rows:
        i, k = row["prompt_index"], row["sample"]
        assert row["correct"] == RIGHT[i][k]
        assert row["scores"] == {"made_up": SCORES[i][k], "oracle": [float(value) for value in RIGHT[i][k]]}
        assert row["metadata"] == PROMPTS[i].metadata()
        assert row["cost"] == {
            "generator_steps": NUM_STEPS,
            "flops": 1e6,
            "judging": {"made_up": pytest.approx(1e5), "oracle": 0.0},
        }


def test_candidates_of_a_row_without_scores_count_as_not_judged(pool, tmp_path):
    rows = list(read_rows(run(pool, tmp_path / "run")))
    rows[3]["scores"] = {}
    unknown = [[float("nan")] * 4 if (i, k) == (1, 1) else SCORES[i][k] for i in range(12) for k in range(2)]
    right, scores = np.array(RIGHT).reshape(12, 8), np.array(unknown).reshape(12, 8)
    expected = mean_of_tasks(np.array([best_of_k(s, v) for s, v in zip(scores, right)]))
    assert scale(rows, 0).curves["made_up"].score.tolist() == pytest.approx(expected)


def test_the_curves_are_those_of_the_pools(pool, tmp_path):
    found = curves(run(pool, tmp_path / "run"))
    assert list(found) == ["made_up", "oracle's ceiling"]
    right, scores = np.array(RIGHT).reshape(12, 8), np.array(SCORES).reshape(12, 8)
    expected = mean_of_tasks(np.array([best_of_k(s, v) for s, v in zip(scores, right)]))
    assert [score["estimate"] for score in found["made_up"]["score"]] == pytest.approx(expected)
    highest = mean_of_tasks(np.array([ceiling(values) for values in right]))
    assert [score["estimate"] for score in found["oracle's ceiling"]["score"]] == pytest.approx(highest)
    assert found["made_up"]["cost"] == pytest.approx([1, *(1.1 * k for k in range(2, 9))])
    assert found["oracle's ceiling"]["cost"] == pytest.approx(range(1, 9))
    assert all(score["low"] <= score["estimate"] <= score["high"] for score in found["made_up"]["score"])


def test_a_pool_may_be_one_image_and_nothing_is_judged_again(pool, tmp_path, capsys):
    out = run(pool, tmp_path / "run")
    rows = contents(out)
    capsys.readouterr()
    run(pool, out, "pool_by=image", "max_k=3")
    assert contents(out) == rows
    summary = json.loads((out / "curve.json").read_text())
    assert (summary["pools"], summary["pool_size"], summary["prompts"]) == (24, 4, 12)
    pools = [best_of_k(s, v, 3) for scores, right in zip(SCORES, RIGHT) for s, v in zip(scores, right)]
    expected = mean_of_tasks(np.array(pools).reshape(12, 2, 3).mean(axis=1))
    assert [score["estimate"] for score in summary["curves"][0]["score"]] == pytest.approx(expected)
    table = (out / "table.md").read_text()
    assert is_laid_out(capsys.readouterr().out, table)
    assert [line.split(" | ")[0] for line in table.splitlines()[2:]] == ["| k", "| ---", "| 1", "| 2", "| 3"]


def test_the_figure_shows_every_judge(pool, tmp_path):
    out = run(pool, tmp_path / "run", "judges.oracle.kind=shapes_oracle")
    found = [node.text for node in ElementTree.parse(out / "curve.svg").iter("{http://www.w3.org/2000/svg}text")]
    assert [found.count(name) for name in ("made_up", "oracle", "oracle's ceiling")] == [1, 1, 1]
    assert "operations an image, relative to one image without search" in found


def test_a_run_without_judges_has_the_ceiling_alone(tmp_path):
    alone = write_pool(tmp_path / "pool", PROMPTS, RIGHT, strategy="none")
    out = run(alone, tmp_path / "run")
    assert list(curves(out)) == ["oracle's ceiling"]
    assert (out / "curve.svg").is_file()


def test_candidates_that_could_not_be_judged_are_taken_last(tmp_path):
    right = [[[True, False, False]]] * 12
    partial = write_pool(tmp_path / "pool", PROMPTS, right, [[[None, 0.2, 0.1]]] * 12)
    found = curves(run(partial, tmp_path / "run"))["made_up"]
    assert [score["estimate"] for score in found["score"]] == pytest.approx([1 / 3, 0, 0])
    assert next(read_rows(tmp_path / "run"))["scores"]["made_up"] == [None, 0.2, 0.1]


def test_a_repeated_sentence_is_another_pool_of_the_same_cluster(tmp_path):
    prompts = prompt_set("test", 0, 12, repeat=True)[:12]
    assert len({prompt.text for prompt in prompts}) == 10
    out = run(write_pool(tmp_path / "pool", prompts, RIGHT, SCORES), tmp_path / "run")
    summary = json.loads((out / "curve.json").read_text())
    assert (summary["pools"], summary["prompts"]) == (12, 10)


@pytest.mark.parametrize("more", [("unit_size=1",), ("unit_size=7", "images_per_batch=8")])
def test_units_and_batches_change_nothing(pool, tmp_path, more):
    base, other = run(pool, tmp_path / "base"), run(pool, tmp_path / "other", *more)
    assert list(read_rows(base)) == list(read_rows(other))
    assert results(base) == results(other)


def test_workers_that_share_a_run_give_the_same_bytes(pool, tmp_path):
    base = run(pool, tmp_path / "base", "unit_size=2")
    shared = tmp_path / "shared"
    workers = [start("scaling_curve", *words(pool, shared, "unit_size=2"), rank=i, world_size=2) for i in range(2)]
    outputs = [worker.communicate(timeout=300) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], outputs
    assert (contents(shared), results(shared)) == (contents(base), results(base))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["judges.a.kind=shapes_oracl"], "judges.a.kind: unknown judge 'shapes_oracl'; did you mean 'shapes_oracle'?"),
        (["judges.a.kid=x"], "judges.a.kid: unknown key; did you mean 'kind'?"),
        (["judges.made_up.kind=shapes_oracle"], "judges.made_up: that name is taken by scores of the run"),
        (["detector=shape"], "unknown detector 'shape'; did you mean 'shapes'?"),
        (["max_k=9"], "max_k: found 9, but the smallest pool has 8 candidates"),
        (["max_k=5", "pool_by=image"], "max_k: found 5, but the smallest pool has 4 candidates"),
        (["pool_by=run"], "pool_by: input should be 'prompt' or 'image', found 'run'"),
        (["tokenizer=shapes/tokeniser"], "no checkpoint 'shapes/tokeniser'"),
    ],
)
def test_bad_settings_are_refused(pool, tmp_path, capsys, more, message):
    assert message in refusal(scaling_curve, words(pool, tmp_path / "run", *more), tmp_path, capsys)


def test_runs_that_are_no_pools_are_refused(tmp_path, capsys):
    def refused(folder: Path) -> str:
        return refusal(scaling_curve, words(folder, tmp_path / "run"), tmp_path, capsys)

    assert "is not a run folder" in refused(tmp_path)
    assert "is a run of evaluate" in refused(write_runs(tmp_path, "a", Sketch(prompts_per_task=1)))
    unfinished = write_pool(tmp_path / "unfinished", PROMPTS, RIGHT, SCORES, limit=3)
    assert "is unfinished (9 units are left); finish it first" in refused(unfinished)
    adaptive = write_pool(tmp_path / "adaptive", PROMPTS, RIGHT, SCORES, strategy="parm")
    assert "strategy 'parm'" in refused(adaptive)
    untold = write_pool(tmp_path / "untold", PROMPTS, RIGHT, SCORES)
    (untold / "images" / "00003" / "metadata.jsonl").unlink()
    assert "00003/metadata.jsonl: no such file" in refused(untold)


@pytest.mark.parametrize(
    ("tokens", "why"),
    [
        (pack_tokens(np.full(36, 351)), "source: prompt 1, sample 0, candidate 2: tokens up to 351, "),
        *(
            (text, "rows/00001.jsonl:1: not a row (candidates.2.tokens: ")
            for text in (pack_tokens(np.zeros(35)), "", "AA==", "!!!!")
        ),
    ],
)
def test_tokens_that_are_no_codes_of_the_tokenizer_are_refused_with_their_row(tmp_path, capsys, tokens, why):
    run = write_pool(tmp_path / "pool", PROMPTS, RIGHT, SCORES)
    file = run / "rows" / "00001.jsonl"
    first, *others = file.read_text().splitlines()
    row = json.loads(first)
    row["candidates"][2]["tokens"] = tokens
    file.write_text("\n".join([json.dumps(row), *others]) + "\n")
    assert why in refusal(scaling_curve, words(run, tmp_path / "run"), tmp_path, capsys)


def test_another_pool_needs_another_run_folder(pool, tmp_path, capsys):
    out = run(pool, tmp_path / "run")
    other = write_pool(tmp_path / "pool", PROMPTS, RIGHT)
    assert "another content of `source`" in refusal(scaling_curve, words(other, out), tmp_path, capsys)
