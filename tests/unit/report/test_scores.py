"""The numbers of the report: those of evaluate, and paired differences that claim no more than they may."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import jobs.compare
from geneval.summary import summarize
from genloop.config import read_yaml
from genloop.job import run_command
from genloop.ledger import Counts
from genloop.records import TAGS
from genloop.report.page.scores import compare, differences, score
from genloop.report.runs import ReportedImage, ReportedRun, read_runs
from genloop.runs.evaluations import read_evaluated
from genloop.runs.rows import EvaluatedRow
from genloop.stats.paired import holm
from genloop.stats.rates import Kind
from tests.worlds.report_runs import CARD, Sketch, write_runs


@pytest.mark.parametrize("intervals", ["bootstrap", "wilson"])
def test_the_scores_are_those_that_evaluate_prints(tmp_path: Path, intervals: Kind) -> None:
    sizes = {"single_object": 7, "colors": 50}
    sketch = Sketch(samples=2, tags=[tag for tag, size in sizes.items() for _ in range(size)], prompts_per_task=1)
    run = write_runs(tmp_path, "a", sketch)
    config = read_yaml(run / "config.yaml") | {"intervals": intervals}
    (run / "config.yaml").write_text(json.dumps(config))
    summary = summarize(list(read_evaluated(run)), intervals=intervals)
    assert [task.accuracy.method for task in summary.tasks] == ["wilson", intervals]
    scores = score(read_runs([run])[0])
    assert [(s.task, s.accuracy, s.correct, s.images, s.prompts) for s in scores[:-1]] == [
        (t.tag, t.accuracy, t.num_correct, t.num_images, t.num_prompts) for t in summary.tasks
    ]
    assert scores[-1].accuracy == summary.overall


def test_a_finished_evaluation_that_was_summed_up_again_shows_its_last_intervals(tmp_path: Path) -> None:
    run = write_runs(tmp_path, "a", Sketch(samples=2, tags=["colors"] * 50, prompts_per_task=1))
    assert {one.accuracy.method for one in score(read_runs([run])[0])} == {"bootstrap"}
    (run / "summary.json").write_text(json.dumps({"intervals": "wilson"}))
    assert {one.accuracy.method for one in score(read_runs([run])[0])} == {"wilson", "combined"}


def test_a_run_does_not_differ_from_itself(tmp_path: Path) -> None:
    run = write_runs(tmp_path, "a", Sketch(prompts_per_task=10))
    found = compare(*read_runs([run, run])).differences
    assert {row.result for row in found} == {"same"}
    assert all(row.difference.estimate == 0 and row.difference.low < 0 < row.difference.high for row in found)
    assert all(row.p == 1 and row.better == row.worse == 0 for row in found)


def test_one_prompt_proves_nothing(tmp_path: Path) -> None:
    one = Sketch(prompts_per_task=1, tags=("colors",))
    runs = [write_runs(tmp_path, f"a{share}", replace(one, accuracy=share)) for share in (0, 1)]
    task, overall = compare(*read_runs(runs)).differences
    assert task.difference == overall.difference
    assert (overall.difference.estimate, overall.p, overall.result) == (1, 1, "same")


def run_of(number: int, right: Mapping[str, np.ndarray]) -> ReportedRun:
    """{task: its images, right or wrong (P, S)} -> a run."""
    images = []
    for task, (tag, found) in enumerate(right.items()):
        for place, sample in np.ndindex(found.shape):
            prompt, correct = f"{tag} {place}", bool(found[place, sample])
            row = {"prompt_index": 1000 * task + place, "sample": sample, "prompt": prompt, "tag": tag}
            row |= {"correct": correct, "reason": "", "metadata": {"tag": tag, "prompt": prompt}}
            where = (row["prompt_index"], sample, prompt, tag, json.dumps(row["metadata"]))
            images.append(ReportedImage(*where, Path("0.png"), correct, "", None, EvaluatedRow(**row)))
    return ReportedRun(number, f"run {number}", Path("runs"), tuple(images), Counts(1, 1, 0, 0), None)


def coin(number: int, seed: int) -> ReportedRun:
    """A run whose every verdict is a fair coin: 15 prompts a task."""
    heads = np.random.default_rng(seed).random((len(TAGS), 15, 1)) < 0.5
    return run_of(number, dict(zip(TAGS, heads)))


def test_many_prompts_that_gain_a_little_do_not_outweigh_few_that_lose_all() -> None:
    before = np.zeros((46, 4), dtype=bool)
    after = before.copy()
    after[:20, 0] = True  # a quarter better
    before[20:26] = True  # and lost
    found = differences(run_of(0, {"colors": before}), run_of(1, {"colors": after}))
    assert all((change.better, change.worse, change.result) == (20, 6, "same") for change in found)
    assert found[0].difference.estimate == pytest.approx(-4 / 184) and found[0].sign < 0.01 < found[0].p


def test_two_samples_of_one_coin_are_rarely_called_different() -> None:
    pairs = [(coin(0, 2 * seed), coin(1, 2 * seed + 1)) for seed in range(40)]
    claims = [any(row.result != "same" for row in differences(*pair)[:-1]) for pair in pairs]
    assert sum(claims) <= 5  # 40 families at a family-wise 5 %: two expected


def test_a_large_gain_is_called_better_and_a_large_loss_worse(tmp_path: Path) -> None:
    low = write_runs(tmp_path, "low", Sketch(prompts_per_task=20, accuracy=0.05, seed=1))
    high = write_runs(tmp_path, "high", Sketch(prompts_per_task=20, accuracy=0.95, seed=2))
    gain, loss = compare(*read_runs([low, high])), compare(*read_runs([high, low]))
    assert {row.result for row in gain.differences} == {"better"}
    assert {row.result for row in loss.differences} == {"worse"}
    assert [row.difference.estimate for row in gain.differences] == pytest.approx(
        [-row.difference.estimate for row in loss.differences]
    )


def test_the_difference_is_that_of_the_scores(tmp_path: Path) -> None:
    runs = read_runs([write_runs(tmp_path, name, Sketch(samples=2, seed=i)) for i, name in enumerate("ab")])
    before, after = (score(run) for run in runs)
    found = compare(*runs).differences
    assert [row.task for row in found] == [s.task for s in before]
    assert [row.difference.estimate for row in found] == pytest.approx(
        [b.accuracy.interval.estimate - a.accuracy.interval.estimate for a, b in zip(before, after)]
    )


def pair(root: Path, card: Mapping[str, Any] | None = None, other: Sketch | None = None) -> list[Path]:
    """Two evaluations, the later one with another card or of another sketch."""
    runs = [write_runs(root, "a", Sketch(seed=1)), write_runs(root, "b", other or Sketch(seed=2))]
    if card is not None:
        (runs[1] / "card.json").write_text(json.dumps(card))
    return runs


def making(**images: Any) -> dict[str, Any]:
    """The card with other images."""
    return CARD | {"images": CARD["images"] | images}


@pytest.mark.parametrize(
    ("card", "other", "reason", "allow"),
    [
        (making(steps=50), None, "steps (18 / 50)", "steps"),
        (
            making(guidance=5.0, rewritten=True),
            None,
            "rewritten (False / True), guidance (2.0 / 5.0)",
            "rewritten,guidance",
        ),
        (CARD | {"options": {"threshold": 0.5}}, None, "options.threshold (0.3 / 0.5)", "options.threshold"),
        (making(source="unknown"), None, "do not both tell how their images were made (told / not known)", "card"),
        (
            None,
            Sketch(samples=4),
            "coverage (24 images of 24 prompts / 96 images of 24 prompts, 24 in both)",
            "coverage",
        ),
    ],
)
def test_what_the_job_compare_refuses_is_refused_with_the_command_that_does_it(
    tmp_path: Path, card: Mapping[str, Any] | None, other: Sketch | None, reason: str, allow: str
) -> None:
    runs = pair(tmp_path, card, other)
    found = compare(*read_runs(runs))
    assert found.differences == () and reason in found.refusal and f"allow=[{allow}" in found.command
    words = shlex.split(found.command)
    assert words[:4] == ["genloop", "run", "compare", "geneval"]
    told = [word for word in words[4:] if not word.startswith("allow=")]
    assert run_command(jobs.compare, told) == 2
    assert run_command(jobs.compare, words[4:]) == 0


def test_what_comparisons_are_about_may_differ(tmp_path: Path) -> None:
    card = making(strategy="parm_plus_plus", n=8, search={"steps": 4, "rounds": 6}, judge={"kind": "llava"})
    found = compare(*read_runs(pair(tmp_path, card)))
    assert (found.refusal, found.command, len(found.differences)) == ("", "", len(TAGS) + 1)


def test_what_no_command_can_compare_has_none(tmp_path: Path) -> None:
    runs = pair(tmp_path, None, Sketch(texts={i: f"another photo {i}" for i in range(24)}))
    found = compare(*read_runs(runs))
    assert "no image of the same prompt and sample" in found.refusal and found.command == ""
    unfinished = compare(*read_runs([runs[0], write_runs(tmp_path, "c", Sketch(units=5))]))
    assert (unfinished.refusal, unfinished.command) == ("B c-verdicts is unfinished", "")


def test_holm_multiplies_by_what_is_left_and_never_falls() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []
