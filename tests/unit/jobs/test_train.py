"""The training jobs end to end at tiny size: shards -> tokenizer -> Show-o, stopped, resumed, refused."""

import json
import signal
from pathlib import Path

import pytest

from ckpts.resolve import resolve
from genloop.checkpoint import load_tensors, verify_folder
from genloop.job import run_command
from genloop.models.common.image_tokenizers import check_image_tokenizer, load_image_tokenizer
from genloop.models.showo.config import check_showo_folder
from genloop.models.showo.load import load_showo
from jobs import make_shapes, train_showo, train_tokenizer
from tests.runs import ROOT, refusal, start, wait_until


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_shards_are_the_committed_ones_byte_for_byte(tmp_path):
    assert run_command(make_shapes, ["tiny", f"out={tmp_path}"]) == 0
    for part, committed in (("shards", "configs/data/shapes/shards"), ("text_tokenizer", "ckpts/tiny/text_tokenizer")):
        assert files(tmp_path / part) == files(ROOT / committed)
    rows = [
        json.loads(line) for path in sorted((tmp_path / "rows").iterdir()) for line in path.read_text().splitlines()
    ]
    assert [row["samples"] for row in rows] == [32, 32]


def test_the_shipped_codebook_is_what_the_job_makes(tmp_path):
    assert run_command(train_tokenizer, ["shapes", f"out={tmp_path}", "num_scenes=50"]) == 0
    assert files(tmp_path / "tokenizer") == files(resolve("shapes/tokenizer"))
    assert json.loads((tmp_path / "survival.json").read_text())["survived"] == 50


def test_a_tiny_showo_comes_out_in_the_public_layout(tmp_path):
    assert run_command(train_showo, ["tiny", f"out={tmp_path}"]) == 0
    folder = tmp_path / "showo"
    verify_folder(folder)
    assert json.loads((folder / "config.json").read_text())["_class_name"] == "Showo"
    assert check_showo_folder(folder).codebook_size == 351
    assert load_showo(folder).text_tokenizer.encode("a photo of a star")
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [5, 10, 15, 20]
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert {"loss", "lr", "grad_norm", "samples_per_s", "steps_per_s"} <= set(rows[0])


def test_training_goes_on_from_a_checkpoint(tmp_path):
    arguments = ["tiny", f"out={tmp_path}", "start=shapes/showo", "train.num_steps=2", "train.log_every=1"]
    assert run_command(train_showo, arguments) == 0
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows[0]["loss"] < 1.5  # a fresh model starts near log(405) = 6
    assert check_showo_folder(tmp_path / "showo").phi.hidden_size == 96


def test_adapters_change_the_layers_alone_and_come_out_merged_and_apart(tmp_path):
    words = ["tiny", f"out={tmp_path}", "start=shapes/showo", "lora.rank=2", "train.num_steps=2", "train.lr=0.01"]
    assert run_command(train_showo, [*words, "train.gradient_checkpointing=true"]) == 0
    before, after = load_tensors(resolve("shapes/showo")), load_tensors(tmp_path / "showo")
    assert before.keys() == after.keys()
    changed = {name for name in before if not before[name].equal(after[name])}
    assert changed and all(".layers." in name and name.endswith("weight") for name in changed)
    assert (tmp_path / "adapter/adapter_model.safetensors").is_file()


@pytest.mark.parametrize(
    ("job", "words"),
    [(train_showo, ["lora.rank=2", "lora.targets=[q_prog]"]), (train_tokenizer, ["train.gradient_checkpointing=true"])],
)
def test_what_a_model_cannot_do_is_refused(tmp_path, job, words):
    with pytest.raises(SystemExit) as caught:
        run_command(job, ["tiny", f"out={tmp_path}", *words])
    assert caught.value.code == 2
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize(
    ("job", "words", "key"),
    [
        (train_showo, ["train.betas=[0.9,1.0]"], "train.betas"),
        (train_tokenizer, ["model.encoder_mult=[]", "model.encoder_blocks=[]"], "model.encoder_mult"),
    ],
)
def test_numbers_that_no_training_can_have_are_refused(tmp_path, capsys, job, words, key):
    assert key in refusal(job, ["tiny", f"out={tmp_path / 'run'}", *words], tmp_path, capsys)


def test_a_tiny_vae_comes_out_as_diffusers_has_it(tmp_path):
    words = ["tiny", f"out={tmp_path}", "kind=autoencoder_kl", "autoencoder.channels=[8,8,8]"]
    assert run_command(train_tokenizer, [*words, "autoencoder.latent_channels=4"]) == 0
    config = json.loads((tmp_path / "vae/config.json").read_text())
    assert config["_class_name"] == "AutoencoderKL" and config["scaling_factor"] > 0
    verify_folder(tmp_path / "vae")
    assert json.loads((tmp_path / "survival.json").read_text())["psnr"] > 5


def test_a_tiny_magvit2_loads_as_an_image_tokenizer(tmp_path):
    assert run_command(train_tokenizer, ["tiny", f"out={tmp_path}"]) == 0
    assert check_image_tokenizer(tmp_path / "tokenizer") == 64
    assert load_image_tokenizer(tmp_path / "tokenizer").grid == (6, 6)
    assert json.loads((tmp_path / "survival.json").read_text())["scenes"] == 50


@pytest.mark.parametrize("job, out", [(train_showo, "showo"), (train_tokenizer, "tokenizer")])
def test_sigterm_saves_and_exits_with_75(tmp_path, job, out):
    trainer = start(job.__name__, "tiny", f"out={tmp_path}", "train.num_steps=1000000", "train.log_every=1")
    wait_until(lambda: (tmp_path / "metrics.jsonl").exists() or trainer.poll() is not None)
    trainer.send_signal(signal.SIGTERM)
    said = trainer.communicate()
    assert trainer.returncode == 75, said
    saved = sorted((tmp_path / "checkpoints").iterdir())
    last = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert saved[-1].name == f"step-{last['step']:07d}"
    assert not (tmp_path / out).exists()


@pytest.mark.parametrize("job, out", [(train_showo, "showo"), (train_tokenizer, "tokenizer")])
def test_a_killed_job_ends_with_the_bytes_of_an_uninterrupted_one(tmp_path, job, out):
    steps = ["train.num_steps=40", "train.save_every=4"]
    assert run_command(job, ["tiny", f"out={tmp_path / 'whole'}", *steps]) == 0
    trainer = start(job.__name__, "tiny", f"out={tmp_path / 'killed'}", *steps)
    wait_until(lambda: any((tmp_path / "killed/checkpoints").glob("step-*")) or trainer.poll() is not None)
    trainer.kill()
    trainer.communicate()
    assert run_command(job, ["tiny", f"out={tmp_path / 'killed'}", *steps]) == 0
    assert files(tmp_path / "killed" / out) == files(tmp_path / "whole" / out)
