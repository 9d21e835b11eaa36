"""A LoRA file becomes a folder with both spellings; files of another base, or changed ones, do not."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from genloop.models.diffusion.config import check_diffusion_folder
from genloop.models.diffusion.lora_export import LoraLayer, write_lora
from genloop.models.diffusion.lora_metadata import read_metadata
from launch.cli import main
from tests.runs import ROOT
from tests.worlds.tiny_diffusion import write_pipeline

BASE = ROOT / "ckpts/tiny/sd"
LAYER = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"


def run(words: list[str]) -> int | str | None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    return ended.value.code


@pytest.fixture
def kohya(tmp_path: Path) -> Path:
    """A file as a web UI has it, alone in its folder."""
    lora = {"unet": {LAYER: LoraLayer(torch.ones(2, 16), torch.ones(16, 2), 8.0)}}
    write_lora(tmp_path / "made", lora, check_diffusion_folder(BASE), title="style", training={"epoch": 4})
    return (tmp_path / "made/kohya.safetensors").rename(tmp_path / "style.safetensors")


def test_both_spellings_are_written_and_say_what_the_file_said(
    tmp_path: Path, kohya: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(["ckpts", "convert", "lora", str(kohya), str(out), "--base", str(BASE)]) == 0
    assert "style.safetensors: 1 layers of unet" in capsys.readouterr().out
    assert (out / "kohya.safetensors").read_bytes() == kohya.read_bytes()
    metadata = read_metadata(out / "pytorch_lora_weights.safetensors")
    assert metadata["ss_epoch"] == "4" and metadata["modelspec.title"] == "style" and "sshs_model_hash" not in metadata
    assert run(["ckpts", "verify", str(out / "kohya.safetensors")]) == 0
    assert run(["ckpts", "verify", str(out)]) == 0


def test_what_cannot_be_converted_is_one_line(tmp_path: Path, kohya: Path, capsys: pytest.CaptureFixture[str]) -> None:
    xl, changed = write_pipeline(tmp_path / "xl", xl=True), tmp_path / "changed.safetensors"
    tensors, metadata = load_file(kohya), read_metadata(kohya)
    save_file({key: value + 1 for key, value in tensors.items()}, changed, metadata)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.txt").touch()
    for file, folder, words, said in (
        (kohya, "out", [], "--base"),
        (kohya, "out", ["--base", str(xl)], "another base"),
        (kohya, "out", ["--base", str(BASE), "--trust-pickle"], "--trust-pickle"),
        (kohya, "full", ["--base", str(BASE)], "other things"),
        (changed, "out", ["--base", str(BASE)], "sshs_model_hash"),
        (tmp_path / "nothing", "out", ["--base", str(BASE)], "nothing"),
    ):
        assert run(["ckpts", "convert", "lora", str(file), str(tmp_path / folder), *words]) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert said in lines[-1] and not (tmp_path / "out").exists()
    assert run(["ckpts", "verify", str(changed)]) == 2
