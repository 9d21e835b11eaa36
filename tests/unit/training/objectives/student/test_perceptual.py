"""The loss of train_diffusion is its formula; rows with little signal, held-out rows and the VAE are left alone."""

from pathlib import Path
from typing import Any

import pytest
import torch

from genloop.config import load_config
from genloop.distributed import World
from genloop.models.diffusion.load import decode_latents
from genloop.models.diffusion.student import encode_pixels
from genloop.models.perceptual.features import encoder_features, feature_distance
from genloop.models.perceptual.load import load_lpips
from genloop.training.student.start import objective_of
from jobs import train_diffusion
from tests.runs import ROOT
from tests.worlds.captioned_images import write_images
from tests.worlds.perceptual_files import write_perceptual_files
from tests.worlds.tiny_student import batch_of

ONE = ("perceptual.pyramid=0", "perceptual.ms_ssim=0", "perceptual.vae=0.5")


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def build(out: Path, *words: str) -> Any:
    """The objective of the preset `tiny` with a batch of 8, its caches full."""
    file = ROOT / "configs/train_diffusion/tiny.yaml"
    few = [f"out={out}", f"cache={out.parent / 'cache'}", "train.batch_size=8"]
    config = load_config(train_diffusion.Config, file, [*few, *words])
    return objective_of(config, train_diffusion.check(config), World(0, 1, 0), "cpu")[0]


@pytest.mark.parametrize("crop", [6, None])
def test_a_row_loses_its_error_and_what_its_prediction_looks_like_by_its_signal(
    tmp_path: Path, crop: int | None
) -> None:
    objective = build(tmp_path / "run", *ONE, f"perceptual.crop={crop or 'null'}", "snr_gamma=null")
    batch, schedule, vae = batch_of(objective), objective.model.schedule, objective.model.denoiser.pipeline.vae
    losses, parts = objective.row_losses(batch)
    assert {row for row, *_ in batch.cuts} == {n for n in range(8) if schedule.kept[batch.timesteps[n]] >= 0.2}
    assert 0 < len(batch.cuts) < 8
    for row in range(8):
        one = slice(row, row + 1)
        kept = schedule.kept[batch.timesteps[row]]
        noised = kept.sqrt() * batch.latents[one] + (1 - kept).sqrt() * batch.noise[one]
        words = batch.embeddings[one]
        output = objective.model.unet(noised, batch.timesteps[one], encoder_hidden_states=words).sample
        wanted = (output - batch.noise[one]).square().mean()
        cut = next((cut for cut in batch.cuts if cut[0] == row), None)
        if cut is not None:
            place = (..., slice(cut[1], cut[1] + (crop or 99)), slice(cut[2], cut[2] + (crop or 99)))
            clean = (noised - (1 - kept).sqrt() * output) / kept.sqrt()
            pixels = [decode_latents(vae, latents[place]) for latents in (clean, batch.latents[one])]
            wanted = wanted + 0.5 * kept * feature_distance(*(encoder_features(vae, image) for image in pixels))[0]
        torch.testing.assert_close(losses[row], wanted, rtol=1e-4, atol=1e-5)
    assert parts["perceptual"].count_nonzero() == len(batch.cuts)


def test_all_of_the_unet_learns_and_the_vae_stays(tmp_path: Path) -> None:
    objective = build(tmp_path / "run")
    unet = objective.model.unet
    for parameter in unet.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))
    _, parts = objective.row_losses(batch_of(objective))
    assert set(parts) == {"mse", "perceptual", "vae", "pyramid", "ms_ssim"}
    parts["perceptual"].sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in unet.parameters())
    assert unet.conv_in.weight.grad.any()
    assert all(p.grad is None for p in objective.model.denoiser.pipeline.vae.parameters())


def test_lpips_is_that_of_the_published_files(tmp_path: Path) -> None:
    files = write_perceptual_files(tmp_path, ("alexnet", "lpips"))
    given = [f"perceptual.weights.{name}={path}" for name, path in files.items()]
    shards = write_images(tmp_path / "shards", [(32, 32)] * 8)
    words = (f"shards={shards}", "resolution=32", "bucket_step=32", "perceptual.crop=null", "mirror=false")
    objective = build(tmp_path / "run", *words, "perceptual.lpips=1", *given)
    batch = batch_of(objective)
    _, parts = objective.row_losses(batch)
    parts["lpips"].sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in objective.model.unet.parameters())
    vae, (row, *_) = objective.model.denoiser.pipeline.vae, batch.cuts[0]
    kept = objective.model.schedule.kept[batch.timesteps[row]]
    noised = kept.sqrt() * batch.latents[[row]] + (1 - kept).sqrt() * batch.noise[[row]]
    output = objective.model.unet(
        noised, batch.timesteps[[row]], encoder_hidden_states=batch.embeddings[[row]], return_dict=False
    )[0]
    pair = torch.cat([(noised - (1 - kept).sqrt() * output) / kept.sqrt(), batch.latents[[row]]])
    wanted = kept * load_lpips(files, "cpu").distance((decode_latents(vae, pair) / 2 + 0.5).clamp(0, 1))
    torch.testing.assert_close(parts["lpips"][row], wanted, rtol=1e-3, atol=1e-5)


def test_mirror_images_are_learned_but_for_those_of_held_out_rows(tmp_path: Path) -> None:
    objective = build(tmp_path / "run", "eval_every=5", "val_rows=16")
    examples, held = objective.data.examples, objective._held_out
    drawn = {item.position for step in range(1, 40) for item in objective.plan(step).items}
    assert len(examples) == 128 and len(held) == 16 and max(held) < 64
    assert {int(examples.source[position]) for position in drawn} == set(range(64)) - set(held)
    assert any(examples[position].is_mirrored for position in drawn)
    wanted, _ = encode_pixels(objective.model.denoiser, examples.pixels(3)[:, ::-1])
    torch.testing.assert_close(objective.data.latent(64 + 3)[0], torch.from_numpy(wanted))
