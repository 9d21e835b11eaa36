"""MAGVIT-v2 training: the entropy terms, gradients through the signs, and what a tokenizer leaves of a scene."""

import math

import numpy as np
import pytest
import torch

from genloop.data.image_reader import check_images, sample_pixels
from genloop.data.images import encode_png
from genloop.data.shards import Sample, Shards, write_shard
from genloop.models.magvit2.config import MagvitConfig
from genloop.models.magvit2.load import build_magvit2
from genloop.shapes.codebook import PatchCodebook
from genloop.shapes.survival import token_survival
from genloop.training.objectives.tokenizer import Reconstruction, code_entropy
from genloop.training.settings import ReconstructionWeights
from tests.runs import ROOT

DATA = ROOT / "configs" / "data" / "shapes"
SMALL = MagvitConfig(4, 8, (1, 1, 1), (1, 1, 1), (1, 1, 1), (1, 1, 1), num_groups=4, resolution=24)


def objective(weights: ReconstructionWeights | None = None) -> Reconstruction:
    return Reconstruction(
        build_magvit2(SMALL, seed=0), Shards(DATA / "shards"), weights or ReconstructionWeights(), seed=0, batch_size=4
    )


def test_the_entropy_of_soft_codes_is_that_of_their_joint_distribution():
    latent = torch.randn(3, 4, 2, 2, generator=torch.Generator().manual_seed(0)) * 0.2
    codebook = build_magvit2(SMALL, seed=0).quantize.embedding
    sure, diverse = code_entropy(latent, codebook, 0.5)
    p = (latent.movedim(1, -1).flatten(0, 2).double() @ codebook.double().T / 0.5).softmax(dim=1)
    assert sure.item() == pytest.approx(-(p * p.log()).sum(dim=1).mean().item(), abs=1e-5)
    assert diverse.item() == pytest.approx(-(p.mean(0) * p.mean(0).log()).sum().item(), abs=1e-5)


def test_sure_and_diverse_codes_are_the_optimum():
    codebook = build_magvit2(SMALL, seed=0).quantize.embedding
    every_code = codebook.T[None, :, None] * 5  # (1, z, 1, K)
    sure, diverse = code_entropy(every_code, codebook, 0.5)
    assert sure.item() == pytest.approx(0, abs=1e-3)
    assert diverse.item() == pytest.approx(math.log(16), abs=1e-3)


def test_gradients_pass_the_signs_to_the_encoder():
    here = objective(ReconstructionWeights(commitment=0, entropy=0))
    loss = here.loss(here.load([0, 1, 2, 3], here.plan(1)))
    loss.total.backward()
    assert here.model.encoder.conv_in.weight.grad.abs().max() > 0
    assert loss.weight == 4
    assert loss.parts["mse"] > 0


def test_pixels_of_a_sample_are_those_that_were_drawn():
    here = objective()
    images = here.load(range(64), here.plan(1))
    codebook = PatchCodebook.enumerate()
    assert images.shape == (64, 3, 24, 24)
    assert torch.equal(codebook.decode(codebook.encode(images)), images)
    assert here.plan(3) == objective().plan(3)


def test_a_sample_without_pixels_is_named():
    with pytest.raises(ValueError, match="sample 7 has txt; needs png"):
        sample_pixels(Sample("7", {"txt": b""}))


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"txt": b"a"}, "needs png"),
        ({"png": b"PNG"}, "png: "),
        ({"png": encode_png(np.zeros((8, 9, 3), np.uint8))}, "9 x 8 .*24"),
    ],
)
def test_a_shard_that_cannot_be_trained_on_is_refused_with_its_sample(tmp_path, fields, why):
    good = {"png": encode_png(np.zeros((24, 24, 3), np.uint8))}
    write_shard(tmp_path / "0.tar", [Sample("good", good)])
    check_images(Shards(tmp_path), 24)
    write_shard(tmp_path / "1.tar", [Sample("bad", fields), Sample("good", good)])
    with pytest.raises(ValueError, match=rf"1\.tar: sample bad.*{why}"):
        check_images(Shards(tmp_path), 24)


def test_every_scene_survives_the_patch_codebook():
    found = token_survival(PatchCodebook.enumerate(), seed=0, num_scenes=1000)
    assert found == {"scenes": 1000, "survived": 1000, "psnr": None, "codes_used": 351, "num_codes": 351}


def test_no_scene_survives_an_untrained_tokenizer():
    found = token_survival(build_magvit2(SMALL, seed=0), seed=0, num_scenes=20)
    assert found["survived"] == 0
    assert 0 < found["psnr"] < 20
