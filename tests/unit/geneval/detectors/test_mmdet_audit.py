"""mmdet itself beside the detector without compiled operators, on a small checkpoint. Run with: pytest -m mmdet"""

import json
import re
from importlib.metadata import distributions, requires
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from geneval.detectors.mask2former import Mask2FormerMaker, Mask2FormerOptions
from geneval.detectors.mmdet import Mmdet, MmdetOptions, packaged_config
from geneval.names import OBJECT_NAMES
from genloop.job import run_command
from genloop.ledger import read_rows
from genloop.records import Wanted
from genloop.registry import require
from genloop.rundir import BadInput
from jobs import evaluate
from tests.worlds.hasty_process import STRICT, exactness, hasty_process
from tests.worlds.tiny_clip import write_transformers_folder
from tests.worlds.tiny_mask2former import SCALE, TINY, mask2former_folder, mmdet_file
from tests.worlds.tiny_mmdet import write_config

pytestmark = pytest.mark.mmdet
SIZES = ((48, 64), (96, 96), (33, 120))
AGREED = 1e-5


@pytest.fixture(scope="module")
def images():
    torch.set_num_threads(1)
    generator = np.random.default_rng(0)
    coarse = [generator.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3)) for height, width in SIZES]
    grown = [np.kron(part, np.ones((8, 8, 1), dtype=int))[:h, :w] for part, (h, w) in zip(coarse, SIZES)]
    return [image.astype(np.uint8) for image in grown]


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return str(write_config(tmp_path_factory.mktemp("mmdet") / "tiny.py", TINY, SCALE))


@pytest.fixture(scope="module")
def theirs(tmp_path_factory, config):
    file = mmdet_file(tmp_path_factory.mktemp("mmdet") / "new.pth")
    return Mmdet.load(MmdetOptions(checkpoint=str(file), config=config), Path, "cpu")


def test_float32_is_strict_whatever_the_process_has_set(theirs, images):
    inside = []
    hook = theirs.model.backbone.register_forward_hook(lambda *_: inside.append(exactness()))
    with hasty_process():
        theirs.detect(images[:1])
    hook.remove()
    assert inside == [STRICT]


def test_both_detectors_agree(theirs, images, tmp_path):
    options = Mask2FormerOptions(checkpoint=str(mask2former_folder(tmp_path / "folder")))
    ours = Mask2FormerMaker.load(options, Path, "cpu")
    for mine, other in zip(ours.detect(images), theirs.detect(images)):
        a, b = (sorted(found, key=lambda one: (one.class_name, one.box, one.score)) for found in (mine, other))
        assert [(one.class_name, one.box, one.area) for one in a] == [(one.class_name, one.box, one.area) for one in b]
        assert max(abs(one.score - two.score) for one, two in zip(a, b, strict=True)) < AGREED
        assert all(np.array_equal(one.mask, two.mask) for one, two in zip(a, b)) and len(a) == 100


def test_evaluate_gives_the_same_verdicts_by_both(images, config, tmp_path):
    for place, image in enumerate(images):
        names = OBJECT_NAMES[place::5]
        folder = tmp_path / "images" / f"{place:05}"
        (folder / "samples").mkdir(parents=True)
        Image.fromarray(image).save(folder / "samples" / "0000.png")
        clauses = [{"class": name, "count": 1, "color": "red"} for name in names]
        metadata = {"tag": "colors", "include": clauses, "prompt": f"photo {place}"}
        (folder / "metadata.jsonl").write_text(json.dumps(metadata))
    clip, ours = write_transformers_folder(tmp_path / "clip"), mask2former_folder(tmp_path / "ours")
    kinds = {
        "hf_mask2former": [f"checkpoint={ours}"],
        "mmdet": [f"checkpoint={mmdet_file(tmp_path / 'theirs.pth')}", f"config={config}"],
    }
    colors = {"checkpoint": clip, "backend": "transformers", "architecture": "null"}
    shared = [f"images={tmp_path / 'images'}", "colors.kind=clip", "options.threshold=0", "canary=off"]
    shared += [f"colors.options.{key}={value}" for key, value in colors.items()]
    found = []
    for kind, options in kinds.items():
        words = [f"out={tmp_path / kind}", f"detector.kind={kind}", *(f"detector.options.{word}" for word in options)]
        assert run_command(evaluate, [*words, *shared, "expect.on_missing=report"]) == 0
        found.append(list(read_rows(tmp_path / kind)))
    assert len(found[0]) == len(images)
    for one, other in zip(*found, strict=True):
        alike = ("correct", "reason", "areas", "colors")
        assert [one[key] for key in alike] == [other[key] for key in alike]
    assert sum(len(row["colors"]) for row in found[0]) > 5


def test_a_file_of_2x_is_the_same_network(theirs, images, tmp_path, config):
    file = mmdet_file(tmp_path / "old.pth", version="2.x")
    old = Mmdet.load(MmdetOptions(checkpoint=str(file), config=config), Path, "cpu")
    for a, b in zip(old.detect(images), theirs.detect(images)):
        assert [(one.class_name, one.score, one.box) for one in a] == [
            (one.class_name, one.score, one.box) for one in b
        ]


def test_what_nobody_looks_at_is_left_out(theirs, images):
    everything = theirs.detect(images)
    scores = np.array([one.score for one in everything[0]], dtype=np.float32)
    threshold, name = float(np.median(scores)), everything[0][int(scores.argmax())].class_name
    asked = [Wanted(threshold, frozenset({name}))] * len(images)
    for whole, part in zip(everything, theirs.detect_for(images, asked)):
        kept = [one for one in whole if np.float32(one.score) > np.float32(threshold)]
        assert [(one.class_name, one.score, one.box) for one in part] == [
            (one.class_name, one.score, one.box) for one in kept
        ]
        for one, two in zip(part, kept):
            assert one.area == two.mask.sum() and (one.mask is None) is (one.class_name != name)
    assert theirs.detect([images[1]])[0][0].score == everything[1][0].score


def test_detecting_does_not_change_the_models_config(theirs, images):
    before = theirs.model.cfg.pretty_text
    theirs.detect(images[:1])
    assert theirs.model.cfg.pretty_text == before and "LoadImageFromFile" in before


def test_weights_of_other_sizes_are_refused_by_name(tmp_path):
    file = mmdet_file(tmp_path / "tiny.pth")
    config = str(packaged_config("s"))
    with pytest.raises(BadInput, match=r"tiny\.pth does not fit .*swin-s.*: .* missing \(backbone\.stages\.0"):
        Mmdet.load(MmdetOptions(checkpoint=str(file), config=config), Path, "cpu")


def test_the_packaged_config_is_that_of_genevals_detector():
    read = require("mmengine.config").Config.fromfile
    assert read(packaged_config("t")).model.backbone.depths == [2, 2, 6, 2]
    config = read(packaged_config("s"))
    assert config.model.backbone.depths == [2, 2, 18, 2] and config.model.panoptic_head.num_queries == 100
    assert config.model.test_cfg.instance_on and not config.model.test_cfg.panoptic_on
    assert len(require("mmdet.evaluation").get_classes("coco")) == len(OBJECT_NAMES)


def test_the_operator_that_a_gpu_runs_is_the_one_of_the_cpu():
    require("mmdet", "mmdet")
    assert find_spec("mmcv._ext").loader is None  # mmcv-lite: the stand-in
    attention = require("mmcv.ops.multi_scale_deform_attn", "mmdet")
    generator = torch.Generator().manual_seed(0)
    value, weights = torch.rand(1, 20, 2, 4, generator=generator), torch.rand(1, 5, 2, 2, 3, generator=generator)
    locations, shapes = torch.rand(1, 5, 2, 2, 3, 2, generator=generator), torch.tensor([[4, 4], [2, 2]])
    starts = torch.tensor([0, 16])
    plain = attention.multi_scale_deformable_attn_pytorch(value, shapes, locations, weights)
    ours = attention.MultiScaleDeformableAttnFunction.apply(value, shapes, starts, locations, weights, 64)
    assert torch.equal(ours, plain)
    with pytest.raises(NotImplementedError, match="mmcv-lite has no operator nms"):
        require("mmcv.ops", "mmdet").nms(torch.rand(3, 4), torch.rand(3), 0.5)


def test_everything_that_the_extras_name_is_here():
    """opencv-python has a window system's libraries; opencv-python-headless is the same package without."""
    wanted = [text for text in requires("genloop") or [] if "clip" in text or "mmdet" in text]
    assert len(wanted) >= 4
    missing, pending, seen = [], [re.match(r"[\w.-]+", text)[0] for text in wanted], set()
    while pending:
        name = pending.pop().lower().replace("_", "-")
        name = "opencv-python-headless" if name == "opencv-python" else name
        if name in seen:
            continue
        seen.add(name)
        found = list(distributions(name=name))
        missing += [] if found else [name]
        needs = [text for text in (found[0].requires if found else None) or [] if ";" not in text]
        pending += [re.match(r"[\w.-]+", text)[0] for text in needs]
    assert missing == []
