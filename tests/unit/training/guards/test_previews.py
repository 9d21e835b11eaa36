"""Images of fixed prompts: the training does not notice, a resumed run goes on with them, bad settings are refused."""

import json

import numpy as np
import pytest

from genloop.data.images import open_image, upright_rgb
from genloop.job import run_command
from genloop.training.guards.previews import preview_folder
from jobs import train_showo
from tests.runs import ROOT, contents, refusal

PROMPTS = f"guards.prompts={ROOT / 'configs/prompts/shapes_test/evaluation_metadata.jsonl'}"
WATCHED = (PROMPTS, "guards.every=5", "guards.num_prompts=3", "guards.held_out_judge=shapes_oracle")


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def trained(run, *words):
    assert run_command(train_showo, ["tiny", f"out={run}", "train.num_steps=10", "train.save_every=5", *words]) == 0
    return run


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        return trained(tmp_path_factory.mktemp("watched"), *WATCHED)


def test_looking_at_images_leaves_the_training_bit_equal(watched, tmp_path):
    plain = trained(tmp_path / "plain")
    assert contents(watched, ("showo", "checkpoints")) == contents(plain, ("showo", "checkpoints"))


def test_every_look_has_an_image_and_numbers_of_each_prompt(watched):
    assert sorted(folder.name for folder in (watched / "previews").iterdir()) == [
        "step-0000000",
        "step-0000005",
        "step-0000010",
    ]
    for step in (0, 5, 10):
        folder = preview_folder(watched, step)
        scores = json.loads((folder / "scores.json").read_text())
        images = [upright_rgb(open_image(folder / f"{place:04d}.png")) for place in range(3)]
        assert len(scores["prompts"]) == 3 and {len(row) for row in scores["measures"].values()} == {3}
        dark = [float((image @ [0.2126, 0.7152, 0.0722] < 0.15 * 255).mean()) for image in images]
        assert scores["measures"]["dark_share"] == pytest.approx(dark)
    lines = [json.loads(line) for line in (watched / "metrics.jsonl").read_text().splitlines()]
    looks = [line for line in lines if "preview_held_out_judge" in line]
    assert [line["step"] for line in looks] == [0, 5, 10]
    assert looks[2]["preview_held_out_judge_change_low"] <= looks[2]["preview_held_out_judge_change"]


def test_the_images_change_with_the_weights_alone(watched, tmp_path):
    again = trained(tmp_path / "again", *WATCHED, "train.lr=0.1")
    assert contents(again, ["previews/step-0000000"]) == contents(watched, ["previews/step-0000000"])
    assert contents(again, ["previews/step-0000010"]) != contents(watched, ["previews/step-0000010"])


def test_a_resumed_run_looks_as_an_uninterrupted_one(watched, tmp_path):
    from genloop.distributed import World

    run, stops = tmp_path / "run", []

    def stop_after_seven(world):
        stops.append(1)
        return len(stops) >= 7

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(World, "stop_requested", stop_after_seven)
        assert (
            run_command(train_showo, ["tiny", f"out={run}", "train.num_steps=10", "train.save_every=5", *WATCHED]) == 75
        )
    trained(run, *WATCHED)
    assert contents(run, ("previews", "showo")) == contents(watched, ("previews", "showo"))
    keys = [sorted(json.loads(line)) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert keys == [sorted(json.loads(line)) for line in (watched / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    "words, named",
    [
        (["guards.every=5"], "guards.prompts"),
        ([PROMPTS], "guards.every"),
        (["guards.every=5", "guards.prompts=/nowhere.txt"], "/nowhere.txt"),
        ([*WATCHED, "guards.held_out_judge.kind=shapes_orakle"], "guards.held_out_judge"),
        (["guards.stop_on=[divergenz]"], "guards.stop_on"),
        (["guards.level=1"], "guards.level"),
    ],
)
def test_settings_that_do_not_fit_are_refused(words, named, tmp_path, capsys):
    assert named in refusal(train_showo, ["tiny", f"out={tmp_path / 'run'}", *words], tmp_path, capsys)


def test_statistics_tell_looks_apart():
    from genloop.training.guards.image_statistics import image_statistics

    rng = np.random.default_rng(0)
    black, white = np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 255, np.uint8)
    noise = rng.integers(0, 256, (32, 32, 3)).astype(np.uint8)
    red = np.tile(np.array([255, 0, 0], np.uint8), (8, 8, 1))
    edge = black.copy()
    edge[:, 4:] = 255
    assert image_statistics(black) == {name: float(name == "dark_share") for name in image_statistics(black)}
    assert image_statistics(white) == {name: float(name == "bright_share") for name in image_statistics(white)}
    assert image_statistics(red)["saturation"] == 1 and image_statistics(noise)["color_entropy"] > 0.95
    assert 0 < image_statistics(edge)["edge_energy"] < 1
