"""Training the connector: it learns, resumes to the bit, and `edit` takes what it wrote."""

import json
from pathlib import Path

import pytest
import torch

from genloop.job import run_command
from genloop.ledger import read_rows
from genloop.models.flux_edit.load import load_connector
from jobs import edit, train_connector
from tests.runs import refusal

ROOT = Path(__file__).parents[3]
FOLDER, SCENE = ROOT / "ckpts/tiny/flux_edit", ROOT / "configs/data/flux_edit/scene.png"


def lines(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def train(out: Path, *words: str) -> Path:
    assert run_command(train_connector, ["tiny", f"out={out}", *words]) == 0
    return out


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("connector") / "run", "parts=[connector, transformer]", "train.num_steps=120")


def test_the_loss_of_held_out_pictures_falls(trained: Path) -> None:
    losses = [line["val_loss"] for line in lines(trained) if "val_loss" in line]
    assert losses[-1] < 0.9 * losses[0]


def test_only_what_is_to_learn_learns(trained: Path, tmp_path: Path) -> None:
    run = train(tmp_path / "run", "new=false")
    before, after = load_connector(FOLDER), load_connector(FOLDER, run / "connector.pt")
    assert not torch.equal(before.linear.weight, after.linear.weight)
    assert not (run / "transformer").exists() and (trained / "transformer").is_dir()


def test_a_resumed_training_gives_the_same_bits(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole")
    parts = tmp_path / "parts"
    words = ["tiny", f"out={parts}"]
    assert run_command(train_connector, [*words, "train.num_steps=20"]) == 0
    for name in ("connector.pt", "done.json"):
        (parts / name).unlink()
    for checkpoint in (parts / "checkpoints").glob("*20"):
        for file in sorted(checkpoint.rglob("*"), reverse=True):
            file.unlink() if file.is_file() else file.rmdir()
        checkpoint.rmdir()
    assert run_command(train_connector, [*words, "train.num_steps=20"]) == 0
    assert (whole / "connector.pt").read_bytes() == (parts / "connector.pt").read_bytes()


def test_edit_draws_with_what_was_trained(trained: Path, tmp_path: Path) -> None:
    words = ["tiny", "requests=null", "steps=2", f"input_image={SCENE}"]
    mine = [f"connector={trained / 'connector.pt'}", f"transformer={trained / 'transformer'}"]
    assert run_command(edit, [*words, f"out={tmp_path / 'a'}"]) == 0
    assert run_command(edit, [*words, *mine, f"out={tmp_path / 'b'}"]) == 0
    (old,), (new,) = read_rows(tmp_path / "a"), read_rows(tmp_path / "b")
    assert old["sha256"] != new["sha256"]


@pytest.mark.parametrize(
    ("words", "start"),
    [
        (["resolution=24"], "resolution:"),
        (["parts=[transformer]"], "parts:"),
        (["resolution=4096"], "fewer"),
        (["start=nowhere"], "nowhere"),
        (["val_share=0.99", "eval_every=5", "shards=nowhere"], "nowhere"),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], start: str
) -> None:
    assert start in refusal(train_connector, ["tiny", f"out={tmp_path / 'run'}", *words], tmp_path, capsys)
