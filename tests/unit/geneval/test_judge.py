"""The verdict as a judge, on scenes that are true by construction; files are judged as the pixels in memory were."""

from pathlib import Path

import numpy as np
import pytest
import torch

from geneval.evaluation import evaluate
from geneval.folder import find_samples
from geneval.judge import ShapesOracle
from genloop.data.image_reader import UnreadableImage, read_image
from genloop.data.images import encode_png
from genloop.records import Prompt
from genloop.shapes.prompts import prompt_set
from genloop.shapes.render import render
from genloop.shapes.scenes import scene_for
from tests.worlds.image_folders import small_set, write_images


def drawn(prompts):
    """Scenes that show their prompts -> (B, 3, H, W) in [0, 1]"""
    scenes = [scene_for(prompt, np.random.default_rng([7, prompt.index])) for prompt in prompts]
    return torch.from_numpy(render(scenes)).permute(0, 3, 1, 2).float() / 255


def test_the_oracle_says_yes_to_true_scenes_and_no_to_swapped_ones():
    prompts = prompt_set("test", 3, 10)
    judge, images = ShapesOracle(), drawn(prompts)
    assert judge.p_yes("outcome", prompts, images).tolist() == [1.0] * len(prompts)
    single = [prompt for prompt in prompts if prompt.tag == "single_object"]
    swapped = judge.p_yes("outcome", single[1:] + single[:1], images[: len(single)])
    assert swapped.tolist() == [0.0] * len(single)
    assert swapped.dtype == torch.float32


def test_the_oracle_judges_the_same_whatever_the_batch():
    prompts = small_set()
    judge, images = ShapesOracle(), drawn(prompts).roll(1, dims=0)
    together = judge.p_yes("outcome", prompts, images)
    alone = [judge.p_yes("outcome", [prompt], image[None]).item() for prompt, image in zip(prompts, images)]
    assert together.tolist() == alone


def test_the_oracle_says_what_is_wrong_where_it_says_no():
    prompts = prompt_set("test", 3, 4)
    judge, images = ShapesOracle(), drawn(prompts).roll(1, dims=0)
    reasons = judge.reasons(prompts, images)
    assert [reason == "" for reason in reasons] == [p == 1 for p in judge.p_yes("outcome", prompts, images)]
    assert any(reason.startswith("no ") for reason in reasons)
    assert ShapesOracle.questions(ShapesOracle.Options(), Path) == ("outcome", "reason")


def test_other_questions_and_prompts_without_metadata_are_refused():
    with pytest.raises(ValueError, match="'outcome' only, not 'clarity'"):
        ShapesOracle().p_yes("clarity", small_set()[:1], torch.zeros(1, 3, 24, 24))
    with pytest.raises(ValueError, match="prompt 4 'a dog'"):
        ShapesOracle().p_yes("outcome", [Prompt(4, "a dog")], torch.zeros(1, 3, 24, 24))


def test_files_are_judged_as_the_oracle_judged_the_pixels(tmp_path):
    images = write_images(tmp_path / "images", small_set(), samples=2)
    samples = find_samples(images)
    rows = evaluate(samples, images, ShapesOracle().evaluator)
    pixels = np.stack([read_image(images / sample.image) for sample in samples])
    tensor = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    said = ShapesOracle().p_yes("outcome", [sample.prompt for sample in samples], tensor)
    assert [row.correct for row in rows] == [bool(p) for p in said]
    assert {row.correct for row in rows} == {True, False}


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P"])
def test_every_kind_of_png_is_read_as_rgb(tmp_path, mode):
    from PIL import Image

    Image.new(mode, (5, 3)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").shape == (3, 5, 3)


def test_images_are_turned_as_their_exif_says(tmp_path):
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 270 degrees
    Image.new("RGB", (5, 3)).save(tmp_path / "a.png", exif=exif)
    assert read_image(tmp_path / "a.png").shape == (5, 3, 3)


@pytest.mark.parametrize("cut", [0, 10, 40, 200])
def test_a_truncated_image_is_unreadable_with_the_same_words_everywhere(tmp_path, cut):
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    reasons = []
    for name in "ab":
        (tmp_path / name).write_bytes(encode_png(noise)[:cut])
        with pytest.raises(UnreadableImage) as caught:
            read_image(tmp_path / name)
        reasons.append(str(caught.value))
    assert reasons[0] == reasons[1]
    assert "\n" not in reasons[0] and "0x" not in reasons[0]
