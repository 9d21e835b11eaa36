"""What a student is trained on, against diffusers: noise levels, targets, weights, latents, texts, predictions."""

from pathlib import Path

import numpy as np
import pytest
import torch

from genloop.models.diffusion.config import check_diffusion_folder, check_schedule
from genloop.models.diffusion.load import load_diffusion
from genloop.models.diffusion.schedule import NoiseSchedule
from genloop.models.diffusion.student import Student, encode_pixels
from genloop.registry import require
from tests.worlds.captioned_images import picture
from tests.worlds.tiny_diffusion import SCHEDULE, write_pipeline

TIMESTEPS = torch.tensor([0, 1, 500, 999])


@pytest.fixture(scope="module", params=[False, True], ids=["sd", "sdxl"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pipeline(tmp_path_factory.mktemp("base") / "base", xl=request.param)


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("zero_snr", [False, True])
def test_noised_latents_targets_and_weights_are_those_of_diffusers(prediction: str, zero_snr: bool) -> None:
    config = {**SCHEDULE, "prediction_type": prediction, "rescale_betas_zero_snr": zero_snr}
    known = {key: value for key, value in config.items() if key != "set_alpha_to_one"}
    reference = require("diffusers").DDPMScheduler(**known)
    schedule, latents, noise = NoiseSchedule(config), normal(4, 4, 8, 8), normal(4, 4, 8, 8) + 1
    expected = reference.add_noise(latents, noise, TIMESTEPS)
    assert torch.allclose(schedule.noised(latents, noise, TIMESTEPS), expected, atol=1e-6)
    target = noise if prediction == "epsilon" else reference.get_velocity(latents, noise, TIMESTEPS)
    assert torch.allclose(schedule.target(latents, noise, TIMESTEPS), target, atol=1e-6)
    snr = require("diffusers.training_utils").compute_snr(reference, TIMESTEPS)
    divisor = snr if prediction == "epsilon" else snr + 1
    weights = torch.where(divisor > 0, snr.clamp(max=5) / divisor.clamp(min=1e-12), 1.0)
    assert torch.allclose(schedule.weights(TIMESTEPS, 5.0), weights, rtol=1e-4)
    assert (schedule.weights(TIMESTEPS, None) == 1).all()


@pytest.mark.parametrize("config", [{**SCHEDULE, "prediction_type": "sample"}, {"prediction_type": "epsilon"}])
def test_a_network_that_predicts_something_else_is_refused(config: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"^start: "):
        check_schedule(config)


def test_a_latent_is_that_of_the_vae_and_decodes_as_the_sampler_decodes(folder: Path) -> None:
    base = check_diffusion_folder(folder)
    denoiser = load_diffusion(base, grid=(12, 12))
    pixels, vae = picture(0, 24, 24), denoiser.pipeline.vae
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.no_grad():
        answer = vae.encode(image).latent_dist
        decoded = (vae.decode(answer.mode()).sample / 2 + 0.5).clamp(0, 1)
    mean, spread = encode_pixels(denoiser, pixels)
    assert np.allclose(mean, answer.mode()[0] * vae.config.scaling_factor, atol=1e-6)
    assert np.allclose(spread, answer.std[0] * vae.config.scaling_factor, atol=1e-6)
    assert torch.allclose(denoiser.decode(torch.from_numpy(mean)[None]), decoded, atol=1e-5)


def test_texts_and_predictions_are_those_of_the_pipeline_that_draws(folder: Path) -> None:
    base = check_diffusion_folder(folder)
    denoiser = load_diffusion(base, grid=(12, 12))
    student = Student(denoiser, base, ["unet", "text_encoder"])
    captions = ["a dog", None, "two cats on a bench"]
    texts = student.read(captions)
    alone = [denoiser.encode(caption) for caption in captions]
    assert torch.allclose(texts.embeddings, torch.cat([one.embeddings for one in alone]), atol=1e-5)
    assert texts.embeddings.requires_grad and not texts.embeddings.is_inference()
    latents, timesteps = normal(3, 4, 12, 12), torch.tensor([3, 600, 999])
    sizes = torch.tensor([[24.0, 24.0, 0.0, 0.0, 24.0, 24.0]] * 3)
    output = student.predict(latents, timesteps, texts, sizes)
    assert torch.allclose(output, denoiser.predict(latents, timesteps, alone), atol=1e-5)
