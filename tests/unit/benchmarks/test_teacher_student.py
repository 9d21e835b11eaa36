"""benchmarks/teacher_student.py: its arms are rows of the pipeline, the table tells what finished seeds gain."""

from pathlib import Path

from benchmarks.learning import Study
from benchmarks.teacher_student import ARMS, COMPARED, CONTRASTS, PIPELINE, markdown
from genloop.rundir import write_json
from launch.pipelines.drafts import load_pipeline
from launch.pipelines.folder import mark_done, write_plan
from tests.worlds.report_runs import Sketch, write_runs


def test_arms_and_comparisons_are_rows_of_the_pipeline() -> None:
    stages = load_pipeline(PIPELINE).stages
    assert set(ARMS) <= set(stages["measure"]["each"]) and set(COMPARED) == set(stages["pairs"]["each"])
    assert {name for one in CONTRASTS for name in one[:2]} <= set(ARMS)


def test_what_is_done_is_told(tmp_path: Path) -> None:
    study = Study(tmp_path, PIPELINE, ())
    stages = study.stages(0)
    write_plan(tmp_path, PIPELINE, stages, {})
    for stage in stages:
        kind, _, row = stage.name.partition(".")
        if kind == "verdicts":
            accuracy = 0.9 if row == "student" else 0.1
            write_runs(tmp_path / "made", row, Sketch(seed=1, accuracy=accuracy)).rename(stage.folder)
        elif kind == "pairs":
            gain = {"prompts": 8, "difference": {"estimate": 0.25, "low": 0.125, "high": 0.5}}
            share = {"estimate": 0.75, "low": None, "high": None}
            (stage.folder / "pairs").mkdir(parents=True)
            write_json(
                stage.folder / "pairs/table.json",
                [{"metric": "ssim", "over": over, "gain": gain, "normalised": share} for over in ("baseline", "floor")],
            )
        else:
            continue
        mark_done(tmp_path, stage, 1.0)
    text = markdown(study, [0, 1], "command")
    assert all(f"\n| {arm} |" in text for arm in ARMS)
    assert "| student - control | > 0 | **+" in text
    for whose, side in COMPARED.values():
        assert f"| 0 | {whose} | ssim | {side} | 8 | +0.250 (+0.125 to +0.500) | +0.750 |" in text
    assert text.count("| ssim |") == len(COMPARED)
