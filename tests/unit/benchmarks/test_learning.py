"""benchmarks/learning.py: which runs are an arm's, differences over seeds, what the table says."""

from pathlib import Path

import pytest

from benchmarks.learning import ARMS, CONTRASTS, PIPELINE, Arm, Study, arms_of, difference, markdown, result
from genloop.rundir import append_metrics
from genloop.stats.intervals import Interval
from launch.pipelines.drafts import load_pipeline
from launch.pipelines.folder import mark_done, write_plan
from tests.worlds.report_runs import Sketch, write_runs

ARM_NAMES = ("baseline", "control", "dpo")


def arm(root: Path, name: str, accuracies: list[float]) -> Arm:
    folders = {
        seed: write_runs(root, f"{name}-{seed}", Sketch(samples=2, seed=7 * seed + len(name), accuracy=accuracy))
        for seed, accuracy in enumerate(accuracies)
    }
    return Arm(name, folders, {})


def test_arms_and_contrasts_are_rows_of_the_study():
    rows = set(load_pipeline(PIPELINE).stages["table"]["each"])
    assert set(ARMS) <= rows and {name for one in CONTRASTS for name in one[:2]} <= set(ARMS)


def test_a_difference_is_the_mean_over_the_seeds_that_both_have(tmp_path):
    better, worse = arm(tmp_path, "better", [1.0, 1.0, 1.0]), arm(tmp_path, "worse", [0.0, 0.0])
    found, alone, number = difference(better, worse)
    assert alone == [1.0, 1.0] and found.estimate == 1.0 and number == 48
    assert better.score(2).estimate == 1.0


@pytest.mark.parametrize(
    ("aim", "interval", "says"),
    [
        ("> 0", (0.02, 0.01, 0.03), "holds"),
        ("> 0", (0.02, -0.01, 0.03), "not told apart"),
        (">= 0", (0.01, -0.01, 0.03), "holds, not told apart"),
        (">= 0", (-0.02, -0.03, -0.01), "does not hold"),
        ("", (0.02, 0.01, 0.03), ""),
    ],
)
def test_an_order_holds_where_its_interval_says_so(aim, interval, says):
    assert result(aim, Interval(*interval)) == says


def test_what_is_done_is_found_by_arm_and_seed_and_told(tmp_path):
    study = Study(tmp_path, PIPELINE, ("vars.images=2",))
    with pytest.raises(SystemExit, match="no finished arm"):
        arms_of(study, [0])
    for seed in (0, 1):
        stages = study.stages(seed)
        write_plan(tmp_path, PIPELINE, stages, {})
        for stage in stages:
            kind, _, row = stage.name.partition(".")
            if kind == "verdicts" and row in ARM_NAMES and not stage.folder.exists():
                written = write_runs(tmp_path / "made", f"{row}-{seed}", Sketch(seed=seed, accuracy=0.5))
                written.rename(stage.folder)
                mark_done(tmp_path, stage, 1.0)
            if stage.name == f"first.{row}" and row == "dpo":
                stage.folder.mkdir()
                append_metrics(stage.folder, {"step": 1, "cpu_seconds": 60.0})
    arms = arms_of(study, [0, 1, 2])
    assert set(arms) == set(ARM_NAMES) and {name: set(one.evaluations) for name, one in arms.items()} == {
        name: {0, 1} for name in ARM_NAMES
    } | {"baseline": {0, 1, 2}}  # without a training it is that of every seed
    told = markdown(study, [0, 1, 2], "command")
    assert "| dpo - control | > 0 |" in told and "| grpo" not in told and "    command\n" in told
    assert next(line for line in told.splitlines() if line.startswith("| dpo |")).endswith("| 1.0 |")  # CPU-minutes
