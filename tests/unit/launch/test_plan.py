"""`genloop plan`: what a job will take, found without running it."""

import json
from pathlib import Path

import pytest

from genloop import job
from genloop.distributed import World
from genloop.models.common.footprint import Tracker
from launch.catalog import import_job
from launch.cli import command
from tests.worlds.image_folders import small_set, write_images

SMALL = ["sampling.steps=2", "limit=1", "unit_size=1", "device=cpu"]
GROUPS = ["train.num_steps=2", "groups=3", "group_size=16", "draws=4"]
BATCH = ["batch.scenes=2", "train.num_steps=2"]
PAIRS = ["train.num_steps=2", "eval_every=0", "meter_every=0", "log_gradients_every=0"]
JUDGED = ["search.strategy=best_of_n", "search.n=2", "judge.kind=llava", "judge.options.checkpoint=shapes/judge"]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("images") / "images", small_set(), samples=2)


def planned(capsys, *words: str) -> dict:
    capsys.readouterr()
    assert command(["plan", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def evaluation(images: Path, out: Path) -> list[str]:
    return ["evaluate", "tiny", f"images={images}", f"out={out}", "expect.on_missing=report", "unit_size=1"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("generate", [*SMALL, *JUDGED]),
        ("train_showo", ["train.num_steps=2"]),
        ("train_student", ["train.num_steps=2"]),
        ("train_diffusion", ["train.num_steps=2"]),
        ("train_judge", BATCH),
        ("train_vlm", ["train.num_steps=2"]),
        ("train_grpo", GROUPS),
    ],
)
def test_the_planned_peak_is_that_of_the_run(name, words, tmp_path):
    module = import_job(name)
    config = job.parse(module, ["tiny", *words, f"out={tmp_path}/run"])
    prepared = job.prepare(module, config, World())
    with Tracker() as measured:
        assert job.execute(module, config, World(), prepared.checked) == 0
    scratch = config.model_copy(update={"out": tmp_path / "scratch"})
    planned = module.footprint(scratch, prepared.checked, device="cpu", ranks=1)
    assert planned.peak == pytest.approx(measured.peak, rel=0.15)
    assert not (tmp_path / "scratch").exists()


def test_a_plan_counts_units_names_parts_and_writes_nothing(capsys, tmp_path):
    found = planned(capsys, "generate", "tiny", *SMALL, f"out={tmp_path}/run", "--procs", "2")["stages"]["generate"]
    assert (found["units"], found["items"], found["workers"]) == (1, 1, 2)
    parts = found["footprint"]["parts"]
    assert parts["generator"] > parts["prefixes"] > 0
    assert found["footprint"]["peak"] == sum(parts.values()) + found["footprint"]["working"]
    assert found["seconds"] is None and "not calibrated" in found["notes"][-1]
    assert not list(tmp_path.iterdir())


def test_time_follows_an_earlier_run_and_its_workers(capsys, images, tmp_path):
    words = evaluation(images, tmp_path / "run")
    assert command(["run", *words]) == 0
    one = planned(capsys, *words, "--like", f"{tmp_path}/run")["stages"]["evaluate"]
    two = planned(capsys, *words, "--like", f"{tmp_path}/run", "--procs", "2")["stages"]["evaluate"]
    assert 0 < one["seconds"]["low"] <= one["seconds"]["seconds"] <= one["seconds"]["high"]
    assert two["seconds"]["seconds"] == pytest.approx(one["seconds"]["seconds"] / 2)


def test_a_few_units_are_tried_elsewhere(capsys, images, tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    for name in ("launch", "calendar"):  # a trial imports nothing of the current folder either
        (tmp_path / f"mine/{name}.py").write_text("raise SystemExit(77)")
    monkeypatch.chdir(tmp_path / "mine")
    found = planned(capsys, *evaluation(images, tmp_path / "run"), "--calibrate", "1")
    assert found["stages"]["evaluate"]["seconds"]["seconds"] > 0
    assert found["timed"] == 1 and [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_what_does_not_fit_is_told_what_would(capsys, tmp_path):
    words = ["train_showo", "tiny", "train.num_steps=2"]
    footprint = planned(capsys, *words)["stages"]["train_showo"]["footprint"]
    room = footprint["peak"] * 0.8 / 0.9 / 2**30
    found = planned(capsys, *words, "--vram", f"{room:.9f}")["stages"]["train_showo"]
    assert not found["fits"] and found["remedy"].startswith("train.rows_per_forward=")
    assert planned(capsys, *words, found["remedy"], "--vram", f"{room:.9f}")["stages"]["train_showo"]["fits"]


def test_shards_of_the_ranks_are_smaller(tmp_path):
    module = import_job("train_showo")
    config = job.parse(module, ["tiny", f"out={tmp_path}/run", "train.zero_stage=3", "train.num_steps=2"])
    whole, share = (module.footprint(config, module.check(config), device="cpu", ranks=n) for n in (1, 4))
    for part in ("weights", "gradients", "optimiser"):
        assert share.parts[part] == pytest.approx(whole.parts[part] / 4, abs=4)


def test_a_missing_checkpoint_is_planned_from_its_shapes_and_named_with_the_command_that_gets_it(
    capsys, tmp_path, monkeypatch
):
    monkeypatch.setenv("CHECKPOINT_DIR", str(tmp_path))
    (tmp_path / "prompts.txt").write_text("a photo of two clocks\n")
    words = [f"prompts={tmp_path}/prompts.txt", f"out={tmp_path}/run", "images_per_prompt=1", "--vram", "80"]
    found = planned(capsys, "generate", "showo_256", *words)["stages"]["generate"]
    assert found["footprint"]["parts"]["generator"] == pytest.approx(2 * 1.448e9 + 4 * 95.4e6, rel=0.01)
    assert found["from_shapes"] == ["show-o", "phi-1_5", "magvitv2"] and found["fits"]
    assert "genloop ckpts fetch show-o phi-1_5 magvitv2" in found["notes"][0]


def test_a_missing_checkpoint_of_unknown_shape_is_named_with_the_command_that_gets_it(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("CHECKPOINT_DIR", str(tmp_path))
    words = ["generator.options.showo=sd-1.5", f"out={tmp_path}/run"]
    found = planned(capsys, "generate", "tiny", *words)["stages"]["generate"]
    assert found["footprint"] is None and found["units"] == 3
    assert "genloop ckpts fetch sd-1.5" in found["notes"][0]


def test_a_job_without_a_device_says_that_it_needs_no_gpu(capsys, tmp_path):
    found = planned(capsys, "make_shapes", "tiny", f"out={tmp_path}/run", "--vram", "24")["stages"]["make_shapes"]
    assert found["footprint"] is None and "CPU alone" in found["notes"][0]


def test_a_pipeline_is_planned_stage_by_stage(capsys):
    found = planned(capsys, "tiny")
    assert list(found["stages"])[:2] == ["prompts", "generate.1"]
    assert found["stages"]["generate.1"]["notes"] == ["its input is made by prompts: plan again when that is done"]


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["generat", "tiny"], ["'generat'", "did you mean 'generate'"]),
        (["generate", "tiny", "imagse_per_prompt=3"], ["imagse_per_prompt"]),
        (["generate", "tiny", "--vram", "0"], ["--vram", "0"]),
        (["generate", "tiny", "--vram", "nan"], ["--vram", "nan"]),
        (["generate", "tiny", "--procs", "none"], ["--procs"]),
        (["generate", "tiny", "--calibrate", "0"], ["--calibrate", "0"]),
        (["generate", "tiny", *SMALL, "--like", "{empty}"], ["--like", "{empty}"]),
        (["train_tokenizer", "tiny", "--like", "{other}"], ["--like", "{other}", "evaluate", "train_tokenizer"]),
        (["tiny", "--like", "{other}"], ["--like", "{other}", "pipeline"]),
    ],
)
def test_bad_input_is_one_line(words, parts, capsys, images, tmp_path):
    places = {"empty": tmp_path / "empty", "other": tmp_path / "run"}
    if "{other}" in words:
        assert command(["run", *evaluation(images, places["other"])]) == 0
    capsys.readouterr()
    assert command(["plan", *(word.format(**places) for word in words)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("genloop: ") and error.count("\n") == 1
    assert all(part.format(**places) in error for part in parts), error


def test_the_page_shows_plan_and_fact(capsys, images, tmp_path):
    words = evaluation(images, tmp_path / "run")
    assert command(["run", *words]) == 0
    units = planned(capsys, *words, "--like", f"{tmp_path}/run", "--keep")["stages"]["evaluate"]["units"]
    kept = json.loads((tmp_path / "run/logs/plan.json").read_text())
    assert kept["units"] == units == 12 * 2
    assert command(["report", f"{tmp_path}/run"]) == 0
    page = (tmp_path / "run/report/index.html").read_text()
    assert '<section id="plans"' in page and f"<td>{units}</td><td>{units}</td>" in page
    assert "not recorded" in page  # the peak of a CPU
