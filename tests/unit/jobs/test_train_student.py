"""A training of a student: what it leaves is loaded by `generate`, what it looks at does not disturb it."""

import json
from pathlib import Path

import pytest

from genloop.job import run_command
from jobs import generate, train_student
from tests.runs import ROOT, contents
from tests.worlds.tiny_diffusion import write_pipeline

PROMPTS = f"guards.prompts={ROOT / 'configs/prompts/shapes_test/evaluation_metadata.jsonl'}"
WATCHED = (PROMPTS, "guards.every=2", "guards.num_prompts=1", "sampling.steps=2", "val_every=2", "val_rows=4")
FEW = ("train.num_steps=4", "train.save_every=2", "train.log_every=1", "train.warmup_steps=1")
KEPT = ("student", "checkpoints")


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.fixture(scope="module")
def xl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pipeline(tmp_path_factory.mktemp("xl") / "tiny_sdxl", xl=True)


def trained(out: Path, *words: str) -> Path:
    assert run_command(train_student, ["tiny", *FEW, *words, f"out={out}"]) == 0
    return out


def lines(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def image(out: Path, *words: str) -> bytes:
    """The first image that `generate` draws."""
    few = ["tiny_diffusion", "limit=1", "images_per_prompt=1", "sampling.steps=2", f"out={out}"]
    assert run_command(generate, [*few, *words]) == 0
    return next((out / "images").rglob("*.png")).read_bytes()


@pytest.mark.parametrize("weights", ["lora", "full"])
@pytest.mark.parametrize("is_xl", [False, True])
def test_generate_draws_with_what_was_trained(tmp_path: Path, xl: Path, weights: str, is_xl: bool) -> None:
    base = xl if is_xl else ROOT / "tests/data/diffusion/tiny_sd"
    run = trained(tmp_path / "run", f"weights={weights}", f"base={base}", "train.lr=0.05")
    plain, lora = f"generator.options.pipeline={base}", run / "lora/pytorch_lora_weights.safetensors"
    words = [plain, f"generator.options.lora=[{lora}]"]
    if weights == "full":
        words = [f"generator.options.pipeline={run / 'student'}"]
    assert image(tmp_path / "trained", *words) != image(tmp_path / "plain", plain)


def test_looking_at_images_and_held_out_rows_leaves_the_training_bit_equal(tmp_path: Path) -> None:
    held = ("val_every=4", "val_rows=4")
    watched = trained(tmp_path / "watched", *WATCHED)
    assert contents(watched, KEPT) == contents(trained(tmp_path / "plain", *held), KEPT)
    looks = [line["step"] for line in lines(watched) if "val_loss" in line and "preview_dark_share" in line]
    assert looks == [0, 2, 4]
