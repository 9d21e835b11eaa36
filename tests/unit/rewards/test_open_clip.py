"""CLIPScore through open_clip itself, on a tiny model with random weights. Run with: pytest -m open_clip"""

import json

import pytest
import torch
from PIL import Image

from ckpts.resolve import resolve
from genloop.data.images import to_uint8
from genloop.models.clip.load import load_clip
from genloop.records import Prompt
from genloop.registry import require
from genloop.rewards.build import build_judge, check_judge
from genloop.rewards.settings import JudgeSettings
from tests.worlds.tiny_clip import MODEL_CONFIG, VISION, random_tensors, shapes, write_clip_folder

pytestmark = pytest.mark.open_clip
PROMPTS = [Prompt(index, f"a photo of {index} dogs") for index in range(11)]
IMAGES = torch.rand(11, 3, 40, 48, generator=torch.Generator().manual_seed(0))
PIXELS = to_uint8(IMAGES)
TEXTS = ["two dogs", "a photo of a red circle left of a blue star"]


@pytest.fixture(scope="module")
def open_clip():
    torch.set_num_threads(1)
    return require("open_clip", "clip")


@pytest.fixture
def folder(tmp_path):
    return write_clip_folder(tmp_path / "clip")


def theirs(open_clip, folder, **options):
    """The published way: one picture at a time through Pillow -> images (11, D), texts (2, D)"""
    name = f"local-dir:{folder}"
    model, _, transform = open_clip.create_model_and_transforms(name, **options)
    model.eval()
    with torch.no_grad():
        pictures = [transform(Image.fromarray(image)) for image in to_uint8(IMAGES)]
        images = model.encode_image(torch.stack(pictures), normalize=True)
        return images, model.encode_text(open_clip.get_tokenizer(name)(TEXTS), normalize=True)


@pytest.mark.parametrize("options", [{}, {"quick_gelu": True}])
def test_vectors_are_those_of_open_clip(open_clip, tmp_path, options):
    folder = write_clip_folder(tmp_path / "clip", **options)
    ours = load_clip(folder)
    images, texts = theirs(open_clip, folder)
    assert torch.allclose(ours.embed_texts(TEXTS), texts, atol=1e-6)
    assert torch.allclose(ours.embed_images(PIXELS), images, atol=1e-6)
    assert ours.flops > 0


def test_the_tiny_model_has_the_tensors_of_open_clip(open_clip):
    model = open_clip.CLIP(**MODEL_CONFIG)
    assert {key: tuple(value.shape) for key, value in model.state_dict().items()} == shapes()


def test_weights_published_by_openai_get_quick_gelu(open_clip, folder):
    images, texts = theirs(open_clip, folder, force_quick_gelu=True)
    plain, quick = load_clip(folder), load_clip(folder, published_as="openai")
    assert torch.allclose(quick.embed_texts(TEXTS), texts, atol=1e-6)
    assert not torch.allclose(plain.embed_texts(TEXTS), texts, atol=1e-3)
    assert torch.allclose(quick.embed_images(PIXELS), images, atol=1e-6)


def test_a_tag_that_nobody_published_is_refused(open_clip, folder):
    with pytest.raises(ValueError, match=r"'openai2' weights .*'openai'"):
        load_clip(folder, published_as="openai2")


def test_an_architecture_can_be_named_for_weights_alone(open_clip, tmp_path, folder):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "tiny-for-tests.json").write_text(json.dumps(MODEL_CONFIG))
    open_clip.add_model_config(tmp_path / "configs")
    named = load_clip(folder, architecture="tiny-for-tests")
    assert torch.equal(named.embed_texts(TEXTS), load_clip(folder).embed_texts(TEXTS))
    with pytest.raises(ValueError, match="architecture 'tiny-for-test'"):
        load_clip(folder, architecture="tiny-for-test")
    with pytest.raises(ValueError, match=r"'openay' weights of ViT-L-14; .*'openai'"):
        load_clip(folder, architecture="ViT-L-14", published_as="openay")


@pytest.mark.parametrize("change", [{"foo": 1}, {"embed_dim": "x"}, {"vision_cfg": VISION | {"head_width": 7}}])
def test_configs_that_open_clip_cannot_build_are_refused_in_one_line(open_clip, tmp_path, change):
    folder = write_clip_folder(tmp_path / "clip", **change)
    with pytest.raises(ValueError, match=r"cannot build .*open_clip_config\.json"):
        load_clip(folder)


def test_other_tensors_than_the_configs_are_refused(open_clip, tmp_path):
    wide = {**MODEL_CONFIG["text_cfg"], "layers": 3}
    folder = write_clip_folder(tmp_path / "clip", text_cfg=wide)
    with pytest.raises(ValueError, match=r"config\.json: 12 missing \(transformer\.resblocks\.2"):
        load_clip(folder)
    assert random_tensors(0)["logit_scale"].shape == ()


def test_the_judge_is_built_from_settings_and_keeps_the_laws(open_clip, tmp_path):
    folder = write_clip_folder(tmp_path / "clip", seed=1)  # random weights, some of whose cosines are positive
    settings = JudgeSettings(kind="clip_score", options={"checkpoint": str(folder)}, cache=tmp_path / "scores")
    check_judge(settings, resolve, ("outcome", "potential"))
    judge = build_judge(settings.model_copy(update={"cache": None}), resolve)
    together = judge.p_yes("outcome", PROMPTS, IMAGES)
    alone = [judge.p_yes("outcome", [p], i[None]).item() for p, i in zip(PROMPTS, IMAGES)]
    assert together.tolist() == alone and judge.flops(("outcome",), PROMPTS[0]) > 0
    assert (together > 0).sum() > 3 and together.max() <= 1
    for _ in range(2):
        assert torch.equal(build_judge(settings, resolve).p_yes("outcome", PROMPTS, IMAGES), together)


def test_torchvision_transforms_work_here(open_clip):
    transforms = require("torchvision.transforms", "clip")
    assert transforms.Resize(8, antialias=True)(IMAGES).shape[-2] == 8
