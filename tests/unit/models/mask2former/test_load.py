"""Mask2Former as a detector: what it refuses, and that no detection depends on its neighbours or on who looks."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from geneval.detectors.mask2former import Mask2FormerMaker, Mask2FormerOptions
from geneval.detectors.mask2former_detector import Mask2FormerDetector
from geneval.judging import judge_images
from geneval.names import OBJECT_NAMES
from geneval.settings import ColorSettings, DetectorSettings, EvaluatorKeys, build_evaluator, check_evaluator
from genloop.checkpoint import load_tensors, save_folder
from genloop.models.mask2former.config import Preparation, read_preparation
from genloop.models.mask2former.load import load_mask2former, raw_logits
from genloop.records import Clause, Detection, Prompt, Wanted
from genloop.rundir import RunFailed
from tests.worlds.hasty_process import HASTY, STRICT, exactness, hasty_process
from tests.worlds.tiny_mask2former import SCALE, TINY, mask2former_folder, mmdet_file


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return mask2former_folder(tmp_path_factory.mktemp("mask2former") / "folder")


@pytest.fixture(scope="module")
def detector(folder: Path) -> Mask2FormerDetector:
    return Mask2FormerDetector(load_mask2former(folder), Preparation("mmdet3", SCALE))


def some_images() -> list[np.ndarray]:
    """Of several sizes, three of which are padded to the same."""
    sizes = [(40, 40), (64, 64), (30, 61), (96, 96), (61, 30), (40, 40)]
    generators = [np.random.default_rng([3, number]) for number in range(len(sizes))]
    return [
        np.kron(generator.integers(0, 256, (5, 5, 3)), np.ones((20, 20, 1)))[:height, :width].astype(np.uint8)
        for (height, width), generator in zip(sizes, generators)
    ]


def facts(found: Sequence[Detection]) -> list[Any]:
    return [(one.class_name, one.score, one.box, one.area, one.mask is None or one.mask.tobytes()) for one in found]


@pytest.mark.parametrize("pixels_per_forward", [1, 96 * 96 * 2, 10**9])
def test_a_detection_does_not_depend_on_the_images_beside_it(
    detector: Mask2FormerDetector, pixels_per_forward: int
) -> None:
    images = some_images()
    alone = [facts(detector.detect([image])[0]) for image in images]
    batched = Mask2FormerDetector(detector.network, detector.preparation, pixels_per_forward=pixels_per_forward)
    assert [facts(found) for found in batched.detect(images)] == alone
    assert [facts(found) for found in batched.detect(images[::-1])] == alone[::-1]
    assert len({json.dumps([one[:4] for one in found]) for found in alone}) == len(images)
    assert batched.detect([]) == []


@pytest.mark.parametrize("threshold", [-1.0, 0.0, 0.1, 0.25])
def test_what_nobody_looks_at_is_left_out_and_the_rest_stays(detector: Mask2FormerDetector, threshold: float) -> None:
    images = some_images()
    everything = detector.detect(images)
    seen = [{one.class_name for one in found} for found in everything]
    asked = [Wanted(threshold, frozenset(sorted(names)[::2])) for names in seen]
    for found, full, wanted in zip(detector.detect_for(images, asked), everything, asked):
        kept = [one for one in full if np.float32(one.score) > np.float32(threshold)]
        bare = [one if one.class_name in wanted.masks_of else replace(one, mask=None) for one in kept]
        assert facts(found) == facts(bare)
        assert all((one.mask is not None) == (one.class_name in wanted.masks_of) for one in found)
    assert all(
        len(found) == 100 and {one.mask.shape for one in found} == {image.shape[:2]}
        for found, image in zip(everything, images)
    )  # type: ignore[union-attr]


def test_preprocessing_is_the_folders_unless_told(folder: Path, tmp_path: Path) -> None:
    for version, said in (("2.x", "mmdet2"), ("3.x", "mmdet3")):
        own = mask2former_folder(tmp_path / version, version=version)
        for option, expected in ((None, said), ("mmdet2", "mmdet2"), ("mmdet3", "mmdet3")):
            options = Mask2FormerOptions(checkpoint=str(own), preprocess=option)
            assert Mask2FormerMaker.load(options, Path, "cpu").preparation == Preparation(expected, SCALE)
    assert read_preparation(folder) == Preparation("mmdet3", SCALE)
    bare = tmp_path / "bare"
    save_folder(bare, load_tensors(folder), {"config.json": TINY.to_json()}, weights="model.safetensors")
    assert read_preparation(bare) == Preparation("mmdet3", (1333, 800))


def test_float32_is_strict_whatever_the_process_has_set(folder: Path) -> None:
    inside = []
    network = load_mask2former(folder)
    network.class_predictor.register_forward_hook(
        lambda *_: inside.append((exactness(), torch.is_autocast_enabled("cpu")))
    )
    pixels = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    with hasty_process():
        plain = raw_logits(network, pixels)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            under_autocast = raw_logits(network, pixels)
        assert exactness() == HASTY
    assert inside == [(STRICT, False)] * 2
    assert all(torch.equal(one, other) for one, other in zip(plain, under_autocast))


def test_weights_that_give_no_numbers_are_no_empty_image(folder: Path) -> None:
    network = load_mask2former(folder)
    network.class_predictor.bias[3] = float("nan")
    detector = Mask2FormerDetector(network, Preparation("mmdet3", SCALE))
    with pytest.raises(RunFailed, match="logits are no numbers"):
        detector.detect_for(some_images()[:1], [Wanted(0.3)])


def test_a_query_whose_mask_is_nowhere_looks_everywhere(folder: Path) -> None:
    """As one whose mask is everywhere: attention to nothing would not be a number."""
    network = load_mask2former(folder)
    pixels = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    state, found = network.state_dict(), []
    for bias in (1.0, -1.0):  # of the query, times 1 of every pixel: the sign of all mask logits
        for name, value in (("mask_embedder.2.0", bias), ("mask_projection", 1.0)):
            (prefix,) = (key.removesuffix(".bias") for key in state if key.endswith(f"{name}.bias"))
            state[f"{prefix}.weight"].zero_()
            state[f"{prefix}.bias"].fill_(value)
        found.append(raw_logits(network, pixels))
    (everywhere, inside), (nowhere, outside) = found
    assert (inside > 0).all() and (outside < 0).all()
    assert nowhere.isfinite().all() and torch.equal(everywhere, nowhere)


def test_it_judges_prompts_with_its_own_masks_and_colours_of_another(folder: Path) -> None:
    parts = {"detector": DetectorSettings(kind="hf_mask2former", options={"checkpoint": str(folder)})}
    keys = EvaluatorKeys(**parts, colors=ColorSettings(kind="shapes", options={}))
    assert check_evaluator(keys, Path) == OBJECT_NAMES
    evaluator = build_evaluator(keys, Path)
    images = some_images()[:2]
    best = [found[0] for found in evaluator.detector.detect(images)]
    assert best[0].score > 0.3
    prompts = [
        Prompt(0, "", "colors", (Clause(best[0].class_name, 1, "red"),)),
        Prompt(1, "", "single_object", (Clause("dog", 1),)),
    ]
    first, second = judge_images(images, prompts, evaluator)
    assert first.objects[best[0].class_name][0].area == best[0].area and len(first.colors[0].margins) == 1
    assert not second.verdict.correct
    named = second.objects and next(iter(second.objects))
    assert named and all(one.mask is None for one in second.objects[named])
    uncolored = [prompts[0], Prompt(1, "", "single_object", (Clause(named, 1),))]
    bare, masked = (judge_images(images, uncolored, evaluator, masks=masks) for masks in (False, True))
    assert [(one.verdict, one.colors, one.distance) for one in bare] == [
        (one.verdict, one.colors, one.distance) for one in masked
    ]
    for name, kept in masked[1].objects.items():
        assert all((one.mask is not None) == (name == named) for one in kept)
    assert [one.mask.sum() for one in masked[1].objects[named]] == [one.area for one in bare[1].objects[named]]


@pytest.mark.parametrize(
    ("image", "found"),
    [
        (np.zeros((4, 4), np.uint8), r"\(4, 4\) uint8"),
        (np.zeros((4, 4, 3), np.float32), r"\(4, 4, 3\) float32"),
        (np.zeros((0, 4, 3), np.uint8), r"\(0, 4, 3\) uint8"),
    ],
)
def test_other_arrays_are_refused(detector: Mask2FormerDetector, image: np.ndarray, found: str) -> None:
    with pytest.raises(ValueError, match=rf"\(H, W, 3\) uint8, found {found}"):
        detector.detect([image])


def changed(folder: Path, target: Path, *, config: dict[str, Any] | None = None, drop: str = "") -> Path:
    """A copy with other entries in config.json, or without a tensor."""
    tensors = {key: value for key, value in load_tensors(folder).items() if key != drop}
    save_folder(target, tensors, {"config.json": {**TINY.to_json(), **(config or {})}}, weights="model.safetensors")
    return target


def labels(*names: str) -> dict[str, Any]:
    return {"id2label": {str(index): name for index, name in enumerate(names)}}


@pytest.mark.parametrize(
    ("config", "drop", "message"),
    [
        ({"model_type": "maskformer"}, "", "model_type is 'maskformer', .*'mask2former'"),
        ({"backbone_config": {"model_type": "resnet"}}, "", "backbone_config .*Swin"),
        ({"num_queries": 10}, "", r"misshapen \(model\.transformer_module\.queries_features\.weight is \[9, 32\]"),
        ({"num_queries": "9"}, "", "num_queries is '9', .*whole number"),
        ({"feature_size": 48}, "", "feature_size 48 .*32"),
        ({"pre_norm": True}, "", "pre_norm is True"),
        ({"activation_function": "gelu"}, "", "activation_function is 'gelu'; .*'relu'"),
        ({"backbone_config": {"hidden_act": "relu"}}, "", "hidden_act is 'relu'; .*'gelu'"),
        ({}, "class_predictor.bias", r"1 missing \(class_predictor\.bias \[81\]\)"),
        ({"id2label": {"1": "a"}}, "", "number its classes from 0"),
        (labels("cat", *OBJECT_NAMES[1:]), "", "class 0 is 'cat', .*15"),
    ],
)
def test_a_folder_that_does_not_fit_is_refused_in_one_line(
    folder: Path, tmp_path: Path, config: dict[str, Any], drop: str, message: str
) -> None:
    options = Mask2FormerOptions(checkpoint=str(changed(folder, tmp_path / "a", config=config, drop=drop)))
    with pytest.raises(ValueError, match=message) as refused:
        Mask2FormerMaker.check(options, Path)
    assert "\n" not in str(refused.value)


def test_names_as_mmdet_writes_them_are_coco(folder: Path, tmp_path: Path) -> None:
    written = {"computer mouse": "mouse", "tv remote": "remote", "computer keyboard": "keyboard"}
    names = [written.get(name, name).replace(" ", "_") for name in OBJECT_NAMES]
    own = changed(folder, tmp_path / "a", config=labels(*names))
    Mask2FormerMaker.check(Mask2FormerOptions(checkpoint=str(own)), Path)
    assert Mask2FormerMaker.inputs(Mask2FormerOptions(checkpoint=str(own)), Path) == {"checkpoint": own}


def test_weights_for_other_classes_are_refused(tmp_path: Path) -> None:
    small = replace(TINY, class_names=TINY.class_names[:79])
    own = mask2former_folder(tmp_path / "a", config=small)
    with pytest.raises(ValueError, match=r"79 classes, .*80 of COCO"):
        Mask2FormerMaker.check(Mask2FormerOptions(checkpoint=str(own)), Path)


def test_a_file_of_mmdet_has_to_be_converted_first(tmp_path: Path) -> None:
    file = mmdet_file(tmp_path / "a.pth")
    for given in (file, tmp_path):
        with pytest.raises(ValueError, match=rf"ckpts convert mask2former {file} FOLDER"):
            Mask2FormerMaker.check(Mask2FormerOptions(checkpoint=str(given)), Path)


@pytest.mark.parametrize(("key", "value"), [("preprocess", "mmdet4"), ("scale", [1333]), ("scale", "1333x800")])
def test_a_conversion_file_of_another_kind_is_refused(tmp_path: Path, key: str, value: Any) -> None:
    own = mask2former_folder(tmp_path / "a")
    record = json.loads((own / "conversion.json").read_text())
    (own / "conversion.json").write_text(json.dumps({**record, key: value}))
    with pytest.raises(ValueError, match=rf"conversion\.json: {key} is .*expected"):
        Mask2FormerMaker.check(Mask2FormerOptions(checkpoint=str(own)), Path)
