"""VAE training: noise belongs to a sample and a step, the loss is reconstruction plus weighted divergence."""

import pytest
import torch

from genloop.data.shards import Shards
from genloop.models.diffusion.fresh import fresh_vae
from genloop.training.objectives.autoencoder import Autoencoding, scaling_factor
from tests.runs import ROOT

SHARDS = Shards(ROOT / "configs/data/shapes/shards")


def objective(kl: float = 0.5) -> Autoencoding:
    vae = fresh_vae(channels=(8, 8), latent_channels=3, layers=1, num_groups=4, side=24, seed=0)
    return Autoencoding(vae, SHARDS, kl=kl, seed=0, batch_size=4)


def test_noise_is_that_of_the_sample_and_the_step_whatever_is_beside_it():
    here = objective()
    first, second = here.plan(1), here.plan(2)
    assert len(first.items) == 4 and first.weight == 4
    pixels, noise = here.load([5, 6], first)
    assert pixels.shape == (2, 3, 24, 24) and noise.shape == (2, 3, 12, 12)
    assert torch.equal(here.load([6], first)[1][0], noise[1])
    assert not torch.equal(here.load([6], second)[1][0], noise[1])


def test_the_loss_is_reconstruction_and_divergence_of_every_row():
    here = objective()
    batch = here.load([0, 1, 2], here.plan(1))
    loss = here.loss(batch)
    with torch.no_grad():
        moments = here.model.quant_conv(here.model.encoder(batch[0] * 2 - 1))
        mean, log_variance = moments.chunk(2, dim=1)
        error = here.model.decode(mean + (log_variance / 2).exp() * batch[1]).sample - (batch[0] * 2 - 1)
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean(dim=(1, 2, 3))
        rows = error.square().mean(dim=(1, 2, 3)) + error.abs().mean(dim=(1, 2, 3)) + 0.5 * divergence
    assert loss.total.item() == pytest.approx(rows.sum().item(), rel=1e-5)
    assert loss.parts["divergence"] == pytest.approx(divergence.sum().item(), rel=1e-5)
    loss.total.backward()
    assert here.model.encoder.conv_in.weight.grad.abs().max() > 0


def test_scaled_latents_have_unit_variance():
    here = objective()
    factor = scaling_factor(here.model, SHARDS, range(8), rows_per_pass=3)
    pixels, _ = here.load(range(8), here.plan(1))
    with torch.no_grad():
        latents = here.model.encode(pixels * 2 - 1).latent_dist.mean
    assert (latents * factor).std().item() == pytest.approx(1, rel=1e-5)
