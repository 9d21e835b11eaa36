"""Colours by CLIP from a folder of transformers: crops, laws of batches, and what is refused. Needs no open_clip."""

import json
import shutil
from copy import deepcopy

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from geneval.colors.clip import ClipColorMaker, ClipOptions
from geneval.colors.crops import crop
from geneval.colors.zero_shot import color_texts
from geneval.settings import ColorSettings
from genloop.job import run_command
from genloop.metrics.clip_source import ClipUser, MetricClip
from genloop.models.clip.config import ARCHITECTURES, check_clip_folder
from genloop.models.clip.folder import check_transformers_folder, sizes
from genloop.models.clip.towers import load_clip_transformers
from genloop.records import COLORS, Detection
from genloop.registry import require
from jobs import evaluate
from tests.worlds.hasty_process import HASTY, STRICT, exactness, hasty_process
from tests.worlds.image_folders import small_set, write_images
from tests.worlds.tiny_clip import END, START, write_clip_folder, write_transformers_folder

BOX = (3.0, 2.0, 30.0, 25.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.set_num_threads(1)
    return write_transformers_folder(tmp_path_factory.mktemp("clip") / "tiny")


def options(folder, **changes):
    given = {"checkpoint": str(folder), "backend": "transformers", "architecture": None, **changes}
    return ColorSettings.model_validate({"kind": "clip", "options": given}).options


@pytest.fixture(scope="module")
def colors(folder):
    return ClipColorMaker.load(options(folder), type(folder), "cpu")


def requests():
    generator = np.random.default_rng(0)
    made = []
    for number, name in enumerate(("bench", "cat", "bench", "tv remote")):
        height, width = 40 + number, 50 - number
        image = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
        masks = [generator.random((height, width)) < 0.7, None]
        made.append((image, [Detection(name, 0.9, BOX, mask) for mask in masks[: 1 + number % 2]]))
    return [*made, (made[0][0], [])]


def test_scores_are_a_hundred_times_the_cosines_of_crops_and_mean_sentences(colors):
    for (image, detections), scores in zip(requests(), colors.scores(requests()), strict=True):
        assert scores.shape == (len(detections), 10) and scores.dtype == np.float32
        if not detections:
            continue
        texts = colors.embedder.embed_texts(color_texts(detections[0].class_name)).view(len(COLORS), 3, -1)
        meant = torch.nn.functional.normalize(texts.mean(dim=1), dim=-1)
        seen = colors.embedder.embed_images([crop(image, detection) for detection in detections])
        assert np.abs(scores - (100 * seen @ meant.T).numpy()).max() < 1e-4
        assert np.abs(scores).max() <= 100.01


def test_scores_do_not_depend_on_the_crops_beside_them_nor_on_how_they_are_cut_into_batches(colors, folder):
    together = colors.scores(requests())
    alone = [colors.scores([request])[0] for request in requests()]
    small = ClipColorMaker.load(options(folder, crops_per_forward=8), type(folder), "cpu").scores(requests() * 3)[:5]
    backwards = colors.scores(requests()[::-1])[::-1]
    for a, *others in zip(together, alone, small, backwards, strict=True):
        assert all(np.array_equal(a, b) for b in others)


def test_all_crops_of_a_batch_go_through_the_tower_together_always_as_many_at_a_time(colors, monkeypatch):
    """With another number of rows, or of threads to share them, the last bits would be others."""
    batches = []
    encode = colors.embedder.network.encode_image
    monkeypatch.setattr(
        colors.embedder.network, "encode_image", lambda pixels: (batches.append(len(pixels)), encode(pixels))[1]
    )
    colors.scores(requests() * 2)
    assert batches == [8, 8]  # of 12 crops


def test_the_background_and_the_box_are_options(colors, folder):
    image, detections = requests()[0]
    plain = colors.scores([(image, detections)])[0]
    for changes in ({"background": "original"}, {"background": "red"}, {"crop": False}):
        other = ClipColorMaker.load(options(folder, **changes), type(folder), "cpu").scores([(image, detections)])[0]
        assert not np.allclose(other, plain, atol=1e-3)
    grey = ClipColorMaker.load(options(folder, background="rgb(153, 153, 153)"), type(folder), "cpu")
    assert np.array_equal(grey.scores([(image, detections)])[0], plain)
    with pytest.raises(ValidationError, match="colour 'no such'"):
        ClipOptions(checkpoint="x", background="no such")


def test_a_box_without_a_pixel_has_no_colour(colors):
    image = requests()[0][0]
    with pytest.raises(ValueError, match=r"'cat', \(3\.0, 2\.0, 3\.2, 9\.0\)"):
        colors.scores([(image, [Detection("cat", 0.5, (3.0, 2.0, 3.2, 9.0))])])


@pytest.mark.parametrize(
    ("box", "mask"),
    [((5.0, 0.0, 4.0, 3.0), None), ((0.0, 0.0, float("nan"), 1.0), None), ((0.0, 0.0, 1e9, 1.0), None)]
    + [((0.0, 0.0, 4.0, 4.0), np.ones((3, 4), dtype=bool))],
)
def test_crops_that_make_no_sense_are_refused(box, mask):
    with pytest.raises(ValueError, match=r"a (box|mask) of 'cat' is"):
        crop(np.zeros((4, 4, 3), dtype=np.uint8), Detection("cat", 0.5, box, mask))


def test_texts_end_once_and_are_cut_to_the_context(colors):
    tokens = colors.embedder.tokenizer(["a photo", "word " * 200])
    assert tokens.shape == (2, 77) and (tokens[:, 0] == START).all() and tokens[1, -1] == END
    assert (tokens[0] == END).int().argmax() == 7 and (tokens[0, 7:] == END).all()


def test_openai_weights_need_quick_gelu(tmp_path):
    folder = write_transformers_folder(tmp_path / "clip", hidden_act="gelu")
    said = r"hidden_act 'gelu' .*'openai' need 'quick_gelu'"
    for refuse in (ClipColorMaker.check, lambda given, find: ClipColorMaker.load(given, find, "cpu")):
        with pytest.raises(ValueError, match=said):
            refuse(options(folder), type(folder))
    told = options(folder, pretrained=None)
    ClipColorMaker.check(told, type(folder))
    plain = ClipColorMaker.load(told, type(folder), "cpu")
    quick = load_clip_transformers(write_transformers_folder(tmp_path / "quick"))
    assert not torch.allclose(plain.embedder.embed_texts(["a cat"]), quick.embed_texts(["a cat"]), atol=1e-3)


def test_another_clip_than_the_one_named_is_refused(folder):
    with pytest.raises(ValueError, match=r"ViT-L-14: vision\.image_size is 32, .*embed_dim is 16"):
        ClipColorMaker.check(options(folder, architecture="ViT-L-14"), type(folder))
    with pytest.raises(ValueError, match=r"'ViT-L/14'; .*'ViT-L-14'\?.*architecture=null"):
        ClipColorMaker.check(options(folder, architecture="ViT-L/14"), type(folder))


def test_the_published_config_is_a_vit_l_14(tmp_path):
    tower = {"hidden_size": 768, "num_attention_heads": 12, "projection_dim": 768}
    image = {"hidden_size": 1024, "num_hidden_layers": 24, "patch_size": 14, "num_attention_heads": 16}
    config = {"model_type": "clip", "projection_dim": 768, "text_config": tower, "vision_config": image}
    read = require("transformers").CLIPConfig
    assert sizes(read(**deepcopy(config))) == ARCHITECTURES["ViT-L-14"]
    above = {**config, "vision_config": {}, "vision_config_dict": image}
    assert sizes(read(**above)) == ARCHITECTURES["ViT-L-14"] != sizes(read(**{**config, "vision_config": {}}))


def test_folders_that_do_not_fit_are_refused(folder, tmp_path):
    broken = write_transformers_folder(tmp_path / "clip")
    tensors = load_file(broken / "model.safetensors")
    tensors["visual_projection.weight"] = tensors["visual_projection.weight"][:8].contiguous()
    save_file(tensors, broken / "model.safetensors")
    with pytest.raises(ValueError, match=r"1 mismatched \(visual_projection.weight"):
        load_clip_transformers(broken)
    save_file({"a": torch.ones(1)}, broken / "model.safetensors")
    with pytest.raises(ValueError, match=r"missing .*logit_scale"):
        check_transformers_folder(broken)
    other = write_clip_folder(tmp_path / "open_clip")
    with pytest.raises(ValueError, match=r"config\.json .*'clip'"):
        check_transformers_folder(other)
    with pytest.raises(ValueError, match="backend=transformers"):
        ClipColorMaker.check(options(folder, backend="open_clip"), type(folder))
    with pytest.raises(ValueError, match="backend=transformers"):
        ClipUser.check(MetricClip(checkpoint=str(folder)), type(folder))


def changed_json(name, change):
    """A folder -> the same with other values in one of its files."""

    def write(folder):
        path = folder / name
        known = json.loads(path.read_text()) if path.is_file() else {}
        path.write_text(json.dumps(change(known) or known))

    return write


def tower(side, **changes):
    return changed_json("config.json", lambda config: config[f"{side}_config"].update(changes))


def changed_tensors(change):
    def write(folder):
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors")

    return write


DAMAGES = {
    "a tower that is a text": (
        changed_json("config.json", lambda c: c | {"vision_config": "x"}),
        "vision_config.*'x'",
    ),
    "a tower that is a list": (
        changed_json("config.json", lambda c: c | {"text_config": [1]}),
        r"text_config.*\[1\]",
    ),
    "a size that is a text": (tower("vision", hidden_size="a"), "hidden_size.*'a'"),
    "no patches": (tower("vision", patch_size=0), "ZeroDivisionError"),
    "heads that do not divide": (
        tower("vision", num_attention_heads=3),
        "not a multiple of the number of attention heads",
    ),
    "an unknown activation": (tower("text", hidden_act="foo"), "text_config.hidden_act 'foo'"),
    "other pixels": (tower("vision", image_size=64), r"1 mismatched \(vision_model.embeddings.position_embedding"),
    "fewer layers": (tower("text", num_hidden_layers=1), "16 unexpected"),
    "a projection that is a text": (
        changed_json("config.json", lambda c: c | {"projection_dim": "a"}),
        "projection_dim",
    ),
    "a tensor less": (changed_tensors(lambda tensors: tensors.pop("text_projection.weight")), "1 missing"),
    "a tensor more": (changed_tensors(lambda tensors: tensors.update(x=torch.ones(1))), "1 unexpected"),
    "no vocabulary": (lambda folder: (folder / "vocab.json").unlink(), "put the tokenizer's files there"),
    "no merges": (lambda folder: (folder / "merges.txt").unlink(), "put the tokenizer's files there"),
    "a torn vocabulary": (
        lambda folder: (folder / "vocab.json").write_text('{"a'),
        "its tokenizer: transformers cannot read it",
    ),
    "another tokenizer.json": (
        lambda folder: (folder / "tokenizer.json").write_text("{}"),
        "its tokenizer: transformers cannot read it",
    ),
    "torn pixels": (lambda folder: (folder / "preprocessor_config.json").write_text("{"), "broken JSON"),
    "two means": (changed_json("preprocessor_config.json", lambda c: {"image_mean": [1, 2]}), "expected three numbers"),
    "no deviation": (
        changed_json("preprocessor_config.json", lambda c: {"image_std": [0, 1, 1]}),
        "expected three numbers",
    ),
    "a mean of NaN": (
        changed_json("preprocessor_config.json", lambda c: {"image_mean": [float("nan")] * 3}),
        "three numb",
    ),
}


@pytest.mark.parametrize("name", list(DAMAGES))
def test_damaged_folders_are_refused_before_anything_is_loaded(folder, tmp_path, name):
    damage, message = DAMAGES[name]
    broken = shutil.copytree(folder, tmp_path / "clip")
    damage(broken)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as refused:
        ClipColorMaker.check(options(broken, pretrained=None), type(folder))
    assert "\n" not in str(refused.value) and str(broken) in str(refused.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda config: config["model_cfg"].update(vision_cfg="x"), "vision_cfg and text_cfg"),
        (lambda config: config.update(preprocess_cfg=[1]), r"preprocess_cfg is \[1\]"),
        (
            lambda config: config.update(preprocess_cfg={"mean": [1, 2]}),
            r"preprocess_cfg\.mean is \[1, 2\]",
        ),
        (
            lambda config: config.update(preprocess_cfg={"std": [0, 1, 1]}),
            r"preprocess_cfg\.std is \[0, 1, 1\]",
        ),
    ],
)
def test_damaged_configs_of_open_clip_are_refused_without_it(tmp_path, change, message):
    folder = write_clip_folder(tmp_path / "clip")
    changed_json("open_clip_config.json", change)(folder)
    with pytest.raises(ValueError, match=message) as refused:
        check_clip_folder(folder)
    assert "\n" not in str(refused.value) and str(folder) in str(refused.value)


def test_a_tokenizer_that_cannot_be_read_ends_an_evaluation_in_one_line(folder, tmp_path, capsys):
    broken = shutil.copytree(folder, tmp_path / "clip")
    (broken / "merges.txt").write_text("a\n")
    words = [f"images={write_images(tmp_path / 'images', small_set())}", f"out={tmp_path / 'out'}", "detector=shapes"]
    words += [
        f"colors.options.{key}={value}" for key, value in {"checkpoint": broken, "backend": "transformers"}.items()
    ]
    code = run_command(evaluate, [*words, "colors.kind=clip", "colors.options.architecture=null", "device=cpu"])
    error = capsys.readouterr().err
    assert code == 2 and error.count("\n") == 1 and error.startswith(f"genloop: {broken}: its tokenizer: ")


def test_tokenizers_and_pixels_that_do_not_fit_are_refused(tmp_path):
    folder = write_transformers_folder(tmp_path / "clip")
    (folder / "preprocessor_config.json").write_text(json.dumps({"size": {"shortest_edge": 64}, "crop_size": 32}))
    with pytest.raises(ValueError, match=r"shortest side .*32 pixels"):
        load_clip_transformers(folder)
    published = {"crop_size": {"height": 32, "width": 32}, "size": {"shortest_edge": 32}, "image_mean": [0.5] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps({**published, "resample": 2, "do_rescale": True}))
    assert load_clip_transformers(folder).preprocessing.interpolation == "bilinear"
    assert load_clip_transformers(folder).preprocessing.mean == (0.5,) * 3
    wrong = write_transformers_folder(tmp_path / "wrong", eos_token_id=7)
    with pytest.raises(ValueError, match=r"tokenizer .*49407 .*config\.json .*7"):
        load_clip_transformers(wrong)
    (folder / "merges.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json, .*vocab\.json .*merges\.txt"):
        load_clip_transformers(folder)


def test_float32_is_strict_whatever_the_process_has_set(folder):
    network = ClipColorMaker.load(options(folder), type(folder), "cpu")
    towers, inside = network.embedder.network.model, []
    for tower in (towers.vision_model, towers.text_model):
        tower.register_forward_hook(lambda *_: inside.append(exactness()))
    with hasty_process():
        network.scores(requests()[:1])
        assert exactness() == HASTY
    assert inside == [STRICT] * len(inside) and len(inside) >= 2


def test_autocast_is_for_gpus(folder):
    with pytest.raises(ValueError, match=r"precision autocast_float16 .*cpu"):
        ClipColorMaker.load(options(folder, precision="autocast_float16"), type(folder), "cpu")
