"""The page of a training: images first, curves with intervals, alarms; any training job, as far as it is."""

import json
import re
import shutil

import pytest

from genloop.job import run_command
from genloop.report.training.curves import sections
from genloop.report.training.write import chosen_looks, write_training
from genloop.runs.trainings import PreviewLook, Training, read_training
from jobs import train_dpo, train_showo
from launch.cli import command
from tests.runs import ROOT
from tests.unit.report.test_page import check_frame

GUARDS = (
    "guards.prompts=configs/prompts/shapes_heldout/evaluation_metadata.jsonl",
    "guards.every=2",
    "guards.num_prompts=3",
    "guards.held_out_judge=shapes_oracle",
    "guards.image_distance=1e-9",
    "guards.stop_on=[image_statistics]",
)
SHORT = ("train.num_steps=6", "train.log_every=2", "train.lr=0.1")


def trained(out, *words):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        assert run_command(train_showo, ["tiny", f"out={out}", *SHORT, *words]) == 0
    return out


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("watched"), *GUARDS, "guards.on_alarm=report")


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("stopped"), *GUARDS)


def test_every_fixed_prompt_is_shown_at_every_look(watched, tmp_path):
    page = write_training(watched, tmp_path).read_text()
    assert page.count("data:image/png") == 3 * 4 + 2 * 2  # and the best and the worst, beside their first image
    assert re.findall(r'<th scope="col">step (\d+)', page) == ["0", "2", "4", "6"]
    assert page.index("data:image/png") < page.index('class="curve"')
    assert page.count("held out ") >= 3 * 4


def test_the_page_needs_nothing_else_and_its_bytes_follow_from_the_run(watched, tmp_path):
    first, again = write_training(watched, tmp_path / "a"), write_training(watched, tmp_path / "b")
    check_frame(first)
    for name in ("index.html", "table.md", "table.json"):
        assert (first.parent / name).read_bytes() == (again.parent / name).read_bytes()


def test_an_alarm_that_ended_it_is_told_first(stopped, tmp_path):
    page = write_training(stopped, tmp_path).read_text()
    lead = re.search(r'<p class="lead">(.*?)</p>', page)[1]
    assert "step 2" in lead and "image statistics" in lead and "checkpoint of step 0" in lead
    assert 'class="is-best"' in page and 'class="is-stop"' in page and 'class="alarm"' in page
    assert json.loads((tmp_path / "table.json").read_text())["stopped"]["step"] == 2


def test_curves_have_intervals_and_share_plots(watched):
    found = dict(sections(read_training(watched)))
    plots = {plot.title: plot for drawn in found.values() for plot in drawn}
    assert list(found)[0] == "Judges and held-out data" and found["Training"][0].title == "loss"
    change = plots["change of the judges since step 0"]
    assert change.lines[0].band and len(change.marks) == 3
    assert {"dark share", "edge energy", "saturation"} <= plots.keys()
    assert all(0 <= float(n) <= 100 for plot in plots.values() for n in re.findall(r"[\d.]+", plot.lines[0].path))


def test_any_training_has_a_page(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    run = tmp_path / "dpo"
    assert run_command(train_dpo, ["tiny", f"out={run}", "train.num_steps=4"]) == 0
    assert command(["report", str(run)]) == 0
    said = capsys.readouterr().out
    assert "held_out_accuracy" in said and str(run / "report" / "index.html") in said
    page = (run / "report" / "index.html").read_text()
    assert "gradient norms" in page and "held out log-probability" in page and "95 % interval" in page


def test_a_training_is_shown_as_far_as_it_is(watched, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(watched, run)
    lines = (run / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (run / "metrics.jsonl").write_bytes(b"".join(lines[:3]) + b'{"step": 4, "lo')
    shutil.rmtree(run / "previews" / "step-0000004")
    (run / "previews" / "step-0000002" / "0001.png").unlink()
    page = write_training(run).read_text()
    assert "step 2 of 6 so far" in page and page.count("image missing") == 1


@pytest.mark.parametrize("damage", ["metrics", "mixed"])
def test_what_cannot_be_shown_is_refused(damage, watched, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(watched, run)
    if damage == "metrics":
        (run / "metrics.jsonl").unlink()
        (run / "done.json").unlink()
    words = [str(run), str(watched)] if damage == "mixed" else [str(run)]
    assert command(["report", *words]) == 2
    said = capsys.readouterr().err
    assert str(run) in said and said.count("\n") == 1


def looked_at(steps, best=None):
    looks = tuple(PreviewLook(step, ROOT, ("a",), {}) for step in steps)
    return Training(ROOT, "train_showo", 100, ({"step": 1},), (), {}, best, looks)


@pytest.mark.parametrize("best", [None, 0, 37, 100])
def test_the_looks_that_are_shown_hold_first_last_and_best(best):
    steps = [look.step for look in chosen_looks(looked_at(range(101), best), 8)]
    assert len(steps) == 8 and steps == sorted(steps) and {0, 100} <= set(steps)
    assert best is None or best in steps
    assert [look.step for look in chosen_looks(looked_at(range(3)), 8)] == [0, 1, 2]
