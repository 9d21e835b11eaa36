"""CLIPScore without open_clip: its arithmetic, its pixels and its laws on a small network of the same interface."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from ckpts.resolve import resolve
from genloop.data.images import to_uint8
from genloop.metrics.clip_score import ClipComparer, ClipScorer
from genloop.models.clip.config import check_clip_folder, forward_flops
from genloop.models.clip.load import ClipEmbedder, Preprocessing
from genloop.models.common.memory import Budget
from genloop.records import Prompt
from genloop.registry import MissingPackage, check_installed
from genloop.rewards.build import check_judge
from genloop.rewards.clip_score import ClipJudge
from genloop.rewards.settings import JudgeSettings
from tests.worlds.tiny_clip import MODEL_CONFIG, write_clip_folder

PROMPTS = [Prompt(index, f"a photo of {index} dogs") for index in range(11)]
IMAGES = torch.rand(11, 3, 24, 24, generator=torch.Generator().manual_seed(0))


class TwoTowers(nn.Module):
    """A patch transformer for images and a byte transformer for texts."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 32, 8, 8)
        self.bytes = nn.Embedding(256, 32)
        self.image = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
        self.text = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)

    def encode_image(self, pixels: Tensor) -> Tensor:
        return self.image(self.patches(pixels).flatten(2).transpose(1, 2)).mean(dim=1)

    def encode_text(self, tokens: Tensor) -> Tensor:
        return self.text(self.bytes(tokens)).mean(dim=1)


def tokenizer(texts: list[str]) -> Tensor:
    return torch.tensor([list(text.encode().ljust(48))[:48] for text in texts])


@pytest.fixture(scope="module")
def embedder():
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network = TwoTowers()
    return ClipEmbedder(network, tokenizer, Preprocessing(32), rows_per_forward=8, flops=7.0)


def judge_of(embedder):
    return ClipJudge(ClipComparer(embedder, prefix="A photo depicts "))


def test_p_yes_is_the_cosine_above_zero(embedder):
    texts = [f"A photo depicts {prompt.text}" for prompt in PROMPTS]
    pixels = to_uint8(IMAGES)
    with torch.no_grad():
        seen = embedder.network.encode_image(embedder.preprocessing(pixels))
        meant = embedder.network.encode_text(tokenizer(texts))
    cosines = nn.functional.cosine_similarity(seen, meant)
    p_yes = judge_of(embedder).p_yes("outcome", PROMPTS, IMAGES)
    assert torch.allclose(p_yes, cosines.clamp(min=0), atol=1e-6) and (p_yes > 0).any()
    scores = ClipScorer(judge_of(embedder).comparer, 2.5).scores(PROMPTS, list(pixels))
    assert scores == [2.5 * p for p in p_yes.tolist()], "the metric is the judge's answer times its factor"
    away = judge_of(_Mirror(embedder)).p_yes("potential", PROMPTS, IMAGES)
    assert torch.equal(away, torch.where(p_yes > 0, 0.0, away)) and p_yes.dtype == torch.float32


class _Mirror:
    """Texts on the other side of the sphere: negative cosines."""

    def __init__(self, embedder: ClipEmbedder) -> None:
        self.embed_images, self._embedder = embedder.embed_images, embedder

    def embed_texts(self, texts):
        return -self._embedder.embed_texts(texts)


def test_an_answer_does_not_depend_on_the_rows_beside_it(embedder):
    together = judge_of(embedder).p_yes("outcome", PROMPTS, IMAGES)
    alone = [judge_of(embedder).p_yes("outcome", [p], i[None]).item() for p, i in zip(PROMPTS, IMAGES)]
    judge = judge_of(embedder)
    thirds = torch.cat([judge.p_yes("outcome", PROMPTS[i::3], IMAGES[i::3]) for i in range(3)])
    assert together.tolist() == alone
    assert thirds.tolist() == torch.cat([together[i::3] for i in range(3)]).tolist()


def test_an_answer_is_that_of_the_8_bit_pixels_and_only_questions_about_likeness_have_one(embedder):
    judge = judge_of(embedder)
    written = torch.from_numpy(to_uint8(IMAGES)).permute(0, 3, 1, 2).float() / 255
    assert torch.equal(judge.p_yes("outcome", PROMPTS, IMAGES), judge.p_yes("potential", PROMPTS, written))
    with pytest.raises(ValueError, match="not clarity"):
        judge.p_yes("clarity", PROMPTS, IMAGES)
    assert judge.flops(("outcome", "potential"), PROMPTS[0]) == 7.0


def test_what_does_not_fit_into_memory_is_embedded_in_smaller_passes(embedder, monkeypatch):
    expected, sizes = judge_of(embedder).p_yes("outcome", PROMPTS, IMAGES), []

    def tight(pixels):
        sizes.append(len(pixels))
        if len(pixels) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return type(embedder.network).encode_image(embedder.network, pixels)

    monkeypatch.setattr(embedder.network, "encode_image", tight)
    monkeypatch.setattr(embedder, "budget", Budget(8, "rows"))
    assert torch.allclose(judge_of(embedder).p_yes("outcome", PROMPTS, IMAGES), expected, atol=1e-6)
    assert sizes == [8, 4, 4, 4]


def test_a_text_is_embedded_once_for_all_images_of_its_prompt(embedder):
    judge = judge_of(embedder)
    first = judge.p_yes("outcome", [PROMPTS[0]] * 11, IMAGES)
    kept = judge.comparer._texts[PROMPTS[0].text]
    judge.p_yes("outcome", [PROMPTS[0], PROMPTS[1]], IMAGES[:2])
    assert judge.comparer._texts[PROMPTS[0].text] is kept and len(judge.comparer._texts) == 2
    assert torch.equal(judge.p_yes("outcome", [PROMPTS[0]] * 11, IMAGES), first)


@pytest.mark.parametrize("size", [(24, 24), (32, 32), (64, 64), (37, 50), (50, 37), (100, 33)])
@pytest.mark.parametrize("mode", ["shortest", "squash"])
def test_pixels_are_resized_and_cut_as_pillow_does(size, mode):
    height, width = size
    image = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    plain = Preprocessing(32, mean=(0.0,) * 3, std=(1.0,) * 3, resize_mode=mode)
    ours = plain(image[None])[0].permute(1, 2, 0)
    short = min(height, width)
    target = (32, 32) if mode == "squash" else (int(32 * width / short), int(32 * height / short))
    theirs = Image.fromarray(image).resize(target, Image.Resampling.BICUBIC)
    left, top = (round((side - 32) / 2) for side in theirs.size)
    expected = np.array(theirs.crop((left, top, left + 32, top + 32)))
    assert torch.equal(ours, torch.from_numpy(expected) / 255)


def test_folders_that_are_not_of_open_clip_are_refused(tmp_path):
    folder = write_clip_folder(tmp_path / "clip")
    check_clip_folder(folder)
    with pytest.raises(FileNotFoundError, match=r"no open_clip_config\.json"):
        check_clip_folder(resolve("shapes/showo"))
    with pytest.raises(ValueError, match="CLIP model of open_clip"):
        check_clip_folder(resolve("shapes/showo"), "ViT-L-14")
    weights = folder / "open_clip_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"open_clip_model\.safetensors: tr"):
        check_clip_folder(folder)
    (folder / "open_clip_config.json").write_text("{}")
    with pytest.raises(ValueError, match="no model_cfg"):
        check_judge(JudgeSettings(kind="clip_score", options={"checkpoint": str(folder)}), resolve)


def test_a_package_that_is_not_there_is_named_with_its_extra():
    with pytest.raises(MissingPackage, match=r"^no_such_package is not installed; .*\[clip\]"):
        check_installed("no_such_package", "clip")


def test_operations_are_counted_from_the_config():
    image = 2 * 2 * 17 * (12 * 64**2 + 2 * 17 * 64) + 2 * 16 * 3 * 64 * 64
    text = 2 * 2 * 77 * (12 * 32**2 + 2 * 77 * 32)
    assert forward_flops(MODEL_CONFIG) == image + text
    assert forward_flops({**MODEL_CONFIG, "vision_cfg": {"image_size": 224, "layers": [3, 4], "width": 64}}) == 0.0
