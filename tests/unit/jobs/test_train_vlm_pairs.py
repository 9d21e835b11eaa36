"""The job that trains chat models, on pairs of answers: what comes out judges as it was measured; resumed, refused."""

import json
import os
import shutil
from pathlib import Path

import pytest

from genloop.data.responses.read import ResponseData, open_pairs
from genloop.job import parse, run_command
from genloop.models.qwen.generate import load_talker
from genloop.rewards.responses.chat import ChatJudge
from genloop.training.state import checkpoints
from jobs import train_vlm
from tests.runs import ROOT, refusal
from tests.worlds.response_pairs import COLUMNS, WORDS, write_pairs
from tests.worlds.tiny_instructblip import instructblip_folder

PAIRS = Path("configs/data/shapes/responses/pairs.jsonl")
LOSSES = ("bradley_terry", "dpo", "verdict")


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    os.chdir(ROOT)
    place = tmp_path_factory.mktemp("runs")
    for loss in LOSSES:
        words = ["tiny_pairs", f"pairs.loss={loss}", "train.num_steps=6", "train.save_every=3", "train.lr=0.02"]
        assert run_command(train_vlm, [*words, f"out={place / loss}"]) == 0
    return {loss: place / loss for loss in LOSSES}


def test_the_committed_model_and_pairs_are_what_their_builders_make(tmp_path):
    made = {
        Path("ckpts/tiny/instructblip"): instructblip_folder(tmp_path / "model", words=WORDS),
        PAIRS.parent: write_pairs(tmp_path / "pairs").parent,
    }
    for committed, folder in made.items():
        names = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
        assert names == {path.relative_to(committed) for path in committed.rglob("*") if path.is_file()}
        assert all((folder / name).read_bytes() == (committed / name).read_bytes() for name in names)


def rows_of(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "pairs.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("loss", LOSSES)
def test_what_comes_out_judges_as_it_was_measured(runs, loss):
    pairs, judge = (
        open_pairs(ResponseData(path=PAIRS, layout="columns", columns=COLUMNS)),
        ChatJudge(load_talker(runs[loss] / "merged")),
    )
    summary, rows = json.loads((runs[loss] / "summary.json").read_text()), rows_of(runs[loss])
    assert summary["pairs"] == len(rows) == 8 and "in-domain" in summary["split"]
    right = [row["p"] > 0.5 for row in rows]
    assert summary["accuracy"][0] == pytest.approx(sum(right) / 8)
    assert summary["gain"][0] == pytest.approx(sum(right) / 8 - sum(row["p_at_the_start"] > 0.5 for row in rows) / 8)
    if loss != "verdict":
        found = [pairs[row["row"]] for row in rows]
        images = [pairs.image(row["row"]) for row in rows]
        said = judge.likelihoods([pair.query for pair in found], [pair.responses for pair in found], images)
        chosen = [both[pair.best].mean > both[1 - pair.best].mean for both, pair in zip(said, found)]
        assert chosen == right


@pytest.mark.parametrize("loss", ["dpo", "verdict"])
def test_a_resumed_run_ends_with_the_same_bytes_and_compares_with_the_same_start(runs, tmp_path, loss):
    run = shutil.copytree(runs[loss], tmp_path / "run")
    shutil.rmtree(checkpoints(run)[-1])
    for name in ("done.json", "summary.json", "pairs.jsonl"):
        (run / name).unlink()
    words = ["tiny_pairs", f"pairs.loss={loss}", "train.num_steps=6", "train.save_every=3", "train.lr=0.02"]
    assert run_command(train_vlm, [*words, f"out={run}"]) == 0
    for name in ("summary.json", "pairs.jsonl", "adapter/adapter_model.safetensors", "merged/model.safetensors"):
        assert (run / name).read_bytes() == (runs[loss] / name).read_bytes()


def test_the_other_families_learn_from_pairs_by_the_same_objective(tmp_path):
    words = ["start=tiny/qwen/vl", "lora_part=all", "train.num_steps=2", "merged=false", f"out={tmp_path / 'run'}"]
    assert run_command(train_vlm, ["tiny_pairs", *words]) == 0
    report = json.loads((tmp_path / "run/supervision.json").read_text())
    assert report["pairs"] == {"pairs": 24, "trained on": 16, "held out": 8} and report["fold_sizes"] == [8, 8, 8]


def test_a_plan_counts_the_passes_of_pairs(tmp_path):
    config = parse(train_vlm, ["tiny_pairs", "pairs.loss=dpo", f"out={tmp_path / 'run'}"])
    planned = train_vlm.footprint(config, train_vlm.check(config), device="cpu", ranks=1)
    assert planned.parts["weights"] > 0 and planned.working > 0


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["start=null", "lora.rank=0", "merged=false"], "start"),
        (["pairs.fold=3"], "pairs.fold"),
        (["pairs.num_folds=30"], "pairs.num_folds"),
        (["chat.too_long=cut"], "chat.too_long"),
        (["chat.max_length=9", "chat.too_long=drop"], "data"),
        (["objective=conversations"], "data.shapes.pairs"),
        (["data.shapes.pairs.columns.query=asked"], "asked"),
        (["data.shapes.pairs.path=configs/data/qwen/chats.jsonl"], "data.shapes.pairs"),
        (["pairs.loss=bradley"], "pairs.loss"),
    ],
)
def test_what_does_not_go_together_is_refused_before_anything_is_written(tmp_path, capsys, words, named):
    assert named in refusal(train_vlm, ["tiny_pairs", *words, f"out={tmp_path / 'run'}"], tmp_path, capsys)
