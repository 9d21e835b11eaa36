"""A training of a student: what it leaves is loaded by `generate`, what it looks at does not disturb it."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from genloop.checkpoint import load_file, load_tensors
from genloop.data.shards import Shards
from genloop.job import parse, run_command
from jobs import generate, train_student
from tests.runs import ROOT, contents, refusal
from tests.worlds.captioned_images import fields_of, write_images
from tests.worlds.tiny_diffusion import write_pipeline

PROMPTS = f"guards.prompts={ROOT / 'configs/prompts/shapes_test/evaluation_metadata.jsonl'}"
WATCHED = (PROMPTS, "guards.every=2", "guards.num_prompts=1", "sampling.steps=2", "eval_every=2", "val_rows=4")
FEW = ("train.num_steps=4", "train.save_every=2", "train.log_every=1", "train.warmup_steps=1")
KEPT = ("lora", "student", "checkpoints")


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
    base = xl if is_xl else ROOT / "ckpts/tiny/sd"
    half = ["saved_dtype=float16"] if weights == "full" else []
    run = trained(tmp_path / "run", f"weights={weights}", f"start={base}", "train.lr=0.05", *half)
    plain, lora = f"generator.options.pipeline={base}", run / "lora/pytorch_lora_weights.safetensors"
    words = [plain, f"generator.options.lora=[{lora}]"]
    if weights == "full":
        words = [f"generator.options.pipeline={run / 'student'}"]
        assert not any("_name_or_path" in path.read_text() for path in run.rglob("student/**/*config.json"))
        for file in run.rglob("student/**/*.safetensors"):
            assert {str(value.dtype) for value in load_file(file).values() if value.is_floating_point()} == {
                "torch.float16"
            }
    assert image(tmp_path / "trained", *words) != image(tmp_path / "plain", plain)


def test_looking_at_images_and_held_out_rows_leaves_the_training_bit_equal(tmp_path: Path) -> None:
    held = ("eval_every=4", "val_rows=4")
    watched = trained(tmp_path / "watched", *WATCHED)
    assert contents(watched, KEPT) == contents(trained(tmp_path / "plain", *held), KEPT)
    looks = [line["step"] for line in lines(watched) if "val_loss" in line and "preview_dark_share" in line]
    assert looks == [0, 2, 4]
    measured = [line for line in lines(watched) if "val_loss" in line]
    assert all(line["val_loss_low"] < line["val_loss"] < line["val_loss_high"] for line in measured)
    assert {line["val_rows"] for line in measured} == {4}


def test_adapters_beside_weights_in_half_precision_are_float32_and_learn_about_the_same(tmp_path: Path) -> None:
    words = ("train.precision=bf16", *WATCHED)
    whole, half = trained(tmp_path / "whole", *words), trained(tmp_path / "half", *words, "dtype=bfloat16")
    tensors = load_tensors(half / "checkpoints/step-0000004")
    assert {str(value.dtype) for name, value in tensors.items() if name.startswith("model.")} == {"torch.float32"}
    one, other = ([line["loss"] for line in lines(run) if "loss" in line] for run in (whole, half))
    assert other == pytest.approx(one, rel=0.05) and other != one


@pytest.mark.parametrize("is_xl", [False, True])
def test_text_encoders_learn_beside_the_unet_with_targets_of_their_own(tmp_path: Path, xl: Path, is_xl: bool) -> None:
    words = ["parts=[unet, text_encoder]", "text_lora.rank=2", "train.gradient_checkpointing=true"]
    run = trained(tmp_path / "run", *words, *([f"start={xl}"] if is_xl else []))
    tensors = load_tensors(run / "checkpoints/step-0000004")
    up = {name: value for name, value in tensors.items() if name.startswith("model.") and ".lora_B." in name}
    assert {name.split(".")[1] for name in up} == {"unet", "text_encoder"} | ({"text_encoder_2"} if is_xl else set())
    assert {len(value.T) for name, value in up.items() if "text_encoder" in name} == {2}
    for component in {name.split(".")[1] for name in up}:  # SDXL reads no text encoder's last layer
        assert any(value.abs().max() > 0 for name, value in up.items() if name.split(".")[1] == component)
    assert not list((run / "cache").glob("texts*"))


def test_captions_that_are_cut_off_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    long = fields_of(1, (24, 24)) | {"txt": b"a dog " * 40}
    shards = write_images(tmp_path / "shards", [(24, 24)] * 3, other={1: long})
    trained(tmp_path / "run", f"shards={shards}", "train.num_steps=1")
    assert "1 of 3 captions are longer than 77 tokens" in capsys.readouterr().err


def test_images_of_several_shapes_and_formats_make_buckets_whose_batches_are_learned(tmp_path: Path) -> None:
    shards = write_images(tmp_path / "shards", [(24, 24), (40, 24), (60, 31)] * 3)
    run = trained(tmp_path / "run", f"shards={shards}", "latents=sample", "train.batch_size=2")
    table = json.loads((run / "buckets.json").read_text())
    assert [(row["width"], row["height"], row["samples"]) for row in table] == [(24, 24, 3), (28, 20, 3), (32, 16, 3)]
    assert [line["step"] for line in lines(run)] == [1, 2, 3, 4]


BAD_WORDS = [
    (["start=nowhere"], "nowhere"),
    (["shards=nowhere"], "no shards"),
    (["objective=stf"], "did you mean 'sft'"),
    (["lora.targets=[q_proj]"], "lora.targets: no layer is called 'q_proj'"),
    (
        ["parts=[text_encoder]", "text_lora.targets=[q_prj]"],
        "text_lora.targets: no layer is called 'q_prj'; did you mean",
    ),
    (["parts=[vae]"], "parts"),
    (["bucket_step=6"], "bucket_step: 6 "),
    (["resolution=26"], "resolution: 26 "),
    (["resolution=28"], "00000.tar: sample 000000000: png: 24x24 "),
    (["eval_every=1", "val_rows=64"], "val_rows: 64 "),
    (["guards.every=5"], "guards.prompts"),
    (["lora.rank=0"], "lora.rank"),
    (["dtype=bfloat16"], "dtype: bfloat16 needs"),
    (["dtype=float16", "weights=full", "train.precision=fp16"], "dtype: float16 needs"),
    (["saved_dtype=float16"], "saved_dtype: float16 "),
]


@pytest.mark.parametrize(("words", "message"), BAD_WORDS)
def test_bad_words_are_refused_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert message in refusal(train_student, ["tiny", *words, f"out={tmp_path / 'run'}"], tmp_path, capsys)


@pytest.mark.parametrize("part", ["vae", "text_encoder", "unet", "tokenizer", "scheduler"])
def test_a_base_without_a_component_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], part: str) -> None:
    base = shutil.copytree(ROOT / "ckpts/tiny/sd", tmp_path / "base")
    shutil.rmtree(base / part)
    assert part in refusal(train_student, ["tiny", f"start={base}", f"out={tmp_path / 'run'}"], tmp_path, capsys)


WHOLE = fields_of(1, (24, 24))
BAD_SAMPLES = {
    "no caption": ({"png": WHOLE["png"]}, "needs txt"),
    "no image": ({"txt": b"a dog"}, "needs one of png"),
    "no picture": (WHOLE | {"png": b"a dog"}, "png: not a whole image"),
    "too small": (fields_of(1, (24, 20)), "png: 24x20 "),
    "caption of bytes": (WHOLE | {"txt": b"\xff"}, "txt: no UTF-8"),
}


@pytest.mark.parametrize("name", BAD_SAMPLES)
def test_a_bad_sample_is_named_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    fields, message = BAD_SAMPLES[name]
    shards = write_images(tmp_path / "shards", [(24, 24)] * 3, other={1: fields})
    error = refusal(train_student, ["tiny", f"shards={shards}", f"out={tmp_path / 'run'}"], tmp_path, capsys)
    assert message in error and "00000.tar: sample 00001" in error


def test_an_image_that_is_cut_off_is_named_and_what_was_computed_before_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = WHOLE | {"png": WHOLE["png"][:900]}
    shards = write_images(tmp_path / "shards", [(24, 24)] * 3, other={2: cut})
    with pytest.raises(SystemExit) as stop:
        run_command(train_student, ["tiny", f"shards={shards}", f"out={tmp_path / 'run'}"])
    assert stop.value.code == 2
    assert "00000.tar: sample 00002: png: " in capsys.readouterr().err.splitlines()[-1]


def test_the_planned_caches_are_those_of_the_run(tmp_path: Path, xl: Path) -> None:
    words = ["tiny", f"start={xl}", "latents=sample", *FEW, f"out={tmp_path / 'run'}"]
    config = parse(train_student, words)
    planned = train_student.footprint(config, train_student.check(config), device="cpu", ranks=1).disk["cache"]
    trained(tmp_path / "run", f"start={xl}", "latents=sample", "train.num_steps=1")
    arrays = [np.load(io.BytesIO(data)) for sample in Shards(tmp_path / "run/cache") for data in sample.fields.values()]
    assert planned == sum(array.nbytes for array in arrays)
