"""A small diffusion model from fresh weights: `generate` samples it at several sizes, bad words are refused."""

import json
from pathlib import Path

import pytest

from genloop.job import run_command
from jobs import generate, train_diffusion
from tests.runs import ROOT, refusal

FEW = (
    "train.num_steps=4",
    "train.save_every=2",
    "train.log_every=1",
    "train.warmup_steps=1",
    "eval_every=4",
    "val_rows=4",
)


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        assert run_command(train_diffusion, ["tiny", *FEW, f"out={out}"]) == 0
    return out


@pytest.mark.parametrize(
    "words", [("sampling.height=16", "sampling.width=32"), ("search.strategy=best_of_n", "search.n=2")]
)
def test_generate_draws_with_it_at_other_sizes_and_searches_it(
    trained: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    few = ["tiny_diffusion", "limit=1", "images_per_prompt=1", "sampling.steps=3", f"out={tmp_path / 'drawn'}"]
    few += [f"generator.options.pipeline={trained / 'pipeline'}", "judge.kind=shapes_oracle"]
    assert run_command(generate, [*few, *words]) == 0
    assert len(list((tmp_path / "drawn/images").rglob("samples/*.png"))) == 1


def test_metrics_tell_the_parts_of_the_loss_also_of_held_out_rows(trained: Path) -> None:
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "loss" in line]
    assert len(steps) == 4 and all({"mse", "perceptual", "vae", "pyramid", "ms_ssim"} <= set(line) for line in steps)
    looks = [line for line in lines if "val_perceptual" in line]
    assert [line["step"] for line in looks] == [0, 4] and all(line["val_mse_low"] < line["val_mse"] for line in looks)


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (["perceptual={vae: 0, pyramid: 0, ms_ssim: 0}"], "perceptual"),
        (["perceptual.crop=7"], "perceptual.crop"),
        (["perceptual.crop=5"], "perceptual.ms_ssim"),
        (["perceptual.lpips=1"], "perceptual.lpips"),
        (["perceptual.min_signal=1.5"], "perceptual.min_signal"),
        (["model.channels=[8, 10]"], "model.channels"),
        (["model.attention_from=2"], "model.attention_from"),
        (["model.channels=[8, 8, 8, 8]"], "bucket_step"),
        (["model.kind=dense"], "model.kind"),
        (["weights=lora"], "weights"),
        (["objective=lcm"], "objective"),
        (["objective=dpo", "model.kind=start"], "dpo.rejected"),
        (["start=nowhere"], "nowhere"),
        (["start=shapes/vae"], ""),
        (["shards=nowhere"], "shards"),
        (["eval_every=1", "val_rows=64"], "val_rows"),
    ],
)
def test_bad_words_are_refused_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], key: str
) -> None:
    assert key in refusal(train_diffusion, ["tiny", *words, f"out={tmp_path / 'run'}"], tmp_path, capsys)


def test_a_larger_model_teaches_a_small_one_of_depthwise_blocks(tmp_path: Path) -> None:
    words = ["objective=features", "features.teacher=ckpts/tiny/sd", "train.num_steps=1", "train.warmup_steps=0"]
    assert run_command(train_diffusion, ["tiny", *words, "mirror=false", f"out={tmp_path / 'run'}"]) == 0
    (line,) = (json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines())
    assert line["output"] > 0 and line["features"] > 0
