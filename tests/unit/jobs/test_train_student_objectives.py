"""Every objective of a student learns on rows it was not trained on, and `generate` loads what it leaves."""

import json
import math
from pathlib import Path

import pytest

from genloop.job import run_command
from genloop.models.diffusion.lora_export import DIFFUSERS_FILE, KOHYA_FILE
from genloop.models.diffusion.lora_metadata import check_hashes, read_metadata
from jobs import generate, train_student
from tests.runs import ROOT
from tests.worlds.tiny_diffusion import write_pipeline
from tests.worlds.tiny_student import write_inverted

LEARNING = {  # words, the share of the loss of step 0 that is left at most
    "tiny_lcm": (("train.lr=0.005", "train.num_steps=30", "weights=full"), 0.9),
    "tiny_dpo": (("train.num_steps=30", "train.batch_size=16", "weights=full", "dpo.beta=1000"), 0.9),
    "tiny_features": (("train.lr=0.001", "train.num_steps=30", "features.feature_weight=10"), 0.7),
}


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("preset", LEARNING)
def test_a_few_steps_lower_the_loss_of_held_out_rows(tmp_path: Path, preset: str) -> None:
    words, most = LEARNING[preset]
    more = ["eval_every=30", "val_rows=16", "train.batch_size=8", "train.warmup_steps=2", "features.task_weight=0"]
    assert run_command(train_student, [preset, *more, *words, f"out={tmp_path / 'run'}"]) == 0
    found = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    first, last = (line["val_loss"] for line in found if "val_loss" in line)
    if preset == "tiny_dpo":
        assert first == pytest.approx(math.log(2)) and found[0]["self_test_margin"] == 0
        assert found[0]["val_accuracy"] == 0.5 and found[0]["val_margin"] == 0 and found[0]["val_rows"] == 16
        assert found[-1]["val_margin_low"] > 0
        assert 0 <= found[-1]["val_accuracy_low"] < found[-1]["val_accuracy"] < found[-1]["val_accuracy_high"] <= 1
    assert last < most * first
    pipeline = f"generator.options.pipeline={tmp_path / 'run/student'}"
    few = ["tiny_diffusion", "limit=1", "images_per_prompt=1", f"out={tmp_path / 'drawn'}", pipeline]
    if preset == "tiny_lcm":
        few += ["sampling.scheduler=lcm", "sampling.steps=4", "sampling.guidance_scale=1"]
    assert run_command(generate, few) == 0


@pytest.mark.parametrize("preset", LEARNING)
def test_sdxl_learns_by_every_objective(tmp_path: Path, preset: str) -> None:
    base = write_pipeline(tmp_path / "xl", xl=True)
    words = [f"start={base}", "train.num_steps=1", "train.warmup_steps=0", "eval_every=1", "val_rows=2"]
    assert run_command(train_student, [preset, *words, f"out={tmp_path / 'run'}"]) == 0
    made = "student/unet/config.json" if preset == "tiny_features" else f"lora/{KOHYA_FILE}"
    assert (tmp_path / "run" / made).is_file()


@pytest.mark.parametrize("name", [DIFFUSERS_FILE, KOHYA_FILE])
def test_adapters_of_few_steps_are_loaded_from_either_file(tmp_path: Path, name: str) -> None:
    words = ["train.num_steps=2", "train.warmup_steps=1", f"out={tmp_path / 'run'}"]
    assert run_command(train_student, ["tiny_lcm", *words]) == 0
    check_hashes(tmp_path / "run/lora" / KOHYA_FILE)
    assert read_metadata(tmp_path / "run/lora" / KOHYA_FILE)["ss_steps"] == "2"
    lora = f"generator.options.lora=[{tmp_path / 'run/lora' / name}]"
    few = ["tiny_diffusion", "limit=1", "images_per_prompt=1", f"out={tmp_path / 'drawn'}", lora]
    assert run_command(generate, [*few, "sampling.scheduler=lcm", "sampling.steps=4", "sampling.guidance_scale=1"]) == 0


@pytest.mark.parametrize(
    ("preset", "words", "said"),
    [
        ("tiny_lcm", ("parts=[unet,text_encoder]",), "parts"),
        ("tiny_lcm", ("lcm.guidance_min=9",), "lcm.guidance_min"),
        ("tiny_lcm", ("lcm.solver_steps=1",), "lcm.solver_steps"),
        ("tiny_dpo", ("dpo.rejected=null",), "dpo.rejected"),
        ("tiny_dpo", ("dpo.rejected={few}",), "dpo.rejected: sample"),
        ("tiny_dpo", ("dpo.rejected={tall}",), "dpo.rejected: samples"),
        ("tiny_features", ("weights=lora",), "weights"),
        ("tiny_features", ("features.mid=true",), "features"),
        ("tiny_features", ("features.down=[1]",), "features.down"),
        ("tiny_features", ("features.teacher={other}",), "features.teacher"),
    ],
)
def test_what_does_not_fit_is_one_line_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], preset: str, words: tuple[str, ...], said: str
) -> None:
    places = {"few": tmp_path / "few", "tall": tmp_path / "tall", "other": tmp_path / "other"}
    if "few" in words[0]:
        write_inverted(places["few"], left_out=1)
    if "tall" in words[0]:
        write_inverted(places["tall"], side=24)
    if "other" in words[0]:
        write_pipeline(places["other"], seed=1)
    filled = [word.format(**places) if "{" in word else word for word in words]
    assert run_command(train_student, [preset, *filled, f"out={tmp_path / 'run'}"]) == 2
    captured = capsys.readouterr().err.strip().splitlines()
    assert captured[-1].startswith(f"genloop: {said}")
    assert not (tmp_path / "run").exists() or not any((tmp_path / "run").iterdir())
