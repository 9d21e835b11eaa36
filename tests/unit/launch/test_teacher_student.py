"""Teacher and student as pipelines, really run: models from nothing, then what students learn from the shipped ones."""

import json

import pytest

from genloop.ledger import read_rows
from genloop.models.diffusion.config import check_diffusion_folder
from tests.runs import genloop

ARMS = ("teacher", "floor", "base", "control", "student", "lora-control", "lora")


@pytest.mark.slow
def test_the_models_are_made_from_nothing_in_one_go(tmp_path):
    done = genloop("pipeline", "shapes_diffusion_tiny", f"out={tmp_path}", timeout=900)
    assert done.returncode == 0, done.stderr
    for name, kind in (("sdxl", "StableDiffusionXLPipeline"), ("sd", "StableDiffusionPipeline")):
        assert check_diffusion_folder(tmp_path / name / "student").pipeline == kind


@pytest.mark.slow
def test_students_controls_and_comparisons_come_out_of_one_go(tmp_path):
    words = ["pipeline", "teacher_student_tiny", f"out={tmp_path}"]
    done = genloop(*words, timeout=1800)
    assert done.returncode == 0, done.stderr
    drawn = {arm: [row["latents_sha256"] for row in read_rows(tmp_path / f"images.{arm}")] for arm in ARMS}
    assert len({tuple(found) for found in drawn.values()}) == len(ARMS)  # each arm has images of its own
    table = json.loads((tmp_path / "pairs.lora-over-control/pairs/table.json").read_text())
    assert {line["over"] for line in table} >= {"baseline", "floor"}
    assert (tmp_path / "report/index.html").stat().st_size > 1000
    assert genloop(*words, timeout=300).stderr.count("done already") > len(ARMS)  # nothing is done twice
