"""mmdet itself and the detector without compiled operators on the same recorded checkpoints and images.

Run with: pytest -m mmdet
"""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch

from ckpts.convert.mask2former import convert
from geneval.detectors.mask2former import Mask2FormerMaker, Mask2FormerOptions
from geneval.detectors.mmdet import Mmdet, MmdetDetector, MmdetOptions
from geneval.names import OBJECT_NAMES
from genloop.checkpoint import load_tensors
from genloop.protocols import Detector
from genloop.records import Detection
from tests.goldens.roots import golden_name
from tests.goldens.test_detector import DETECTED, FLIPPED_PIXELS, read, score_slack, weight_files
from tests.worlds.tiny_mmdet import write_config

pytestmark = pytest.mark.mmdet
IMAGES = [path for path in DETECTED if not path.stem.endswith(".v2pre")]  # those mmdet 3.x prepared itself
FLIPPED_ELSEWHERE = 3  # pixels of a mask that mmdet itself, on another CPU, may see on the other side of 0

Pair = tuple[MmdetDetector, Detector]


@pytest.fixture(scope="module")
def detectors(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Pair]:
    torch.set_num_threads(1)

    @cache
    def load(model: Path) -> Pair:
        scratch = tmp_path_factory.mktemp("mmdet")
        long, short = sorted(json.loads((model / "config.json").read_text())["preprocess"]["scale"], reverse=True)
        file = weight_files(model, scratch)[0]
        conversion = convert(file, scratch / "folder", scale=(long, short))
        if file.suffix != ".pth":
            saved = scratch / "tensors"
            saved.mkdir()
            (saved / "model.safetensors").write_bytes(file.read_bytes())
            file = scratch / "checkpoint.pth"
            torch.save({"state_dict": load_tensors(saved)}, file)
        config = write_config(scratch / "config.py", conversion.config, (long, short))
        theirs = Mmdet.load(MmdetOptions(checkpoint=str(file), config=str(config)), Path, "cpu")
        return theirs, Mask2FormerMaker.load(Mask2FormerOptions(checkpoint=str(conversion.folder)), Path, "cpu")

    return load


def test_there_are_images_to_compare() -> None:
    assert IMAGES


@pytest.mark.parametrize("path", IMAGES, ids=golden_name)
def test_mmdet_finds_what_was_recorded_and_the_other_detector_the_same(
    path: Path, detectors: Callable[[Path], Pair]
) -> None:
    image, _, recorded = read(path)
    theirs, ours = (sorted(detector.detect([image])[0], key=key) for detector in detectors(path.parent))
    names = [OBJECT_NAMES[label] for label in recorded["det_labels"]]
    expected = sorted(zip(names, map(tuple, recorded["det_bboxes"].tolist()), recorded["det_scores"].tolist()))
    assert len(theirs) == len(ours) == len(expected)
    for one, other, known in zip(theirs, ours, expected):
        assert key(one)[:2] == key(other)[:2] == known[:2]
        assert abs(one.score - known[2]) <= score_slack(FLIPPED_ELSEWHERE, one.area or 0)
        assert one.mask is not None and one.area and other.mask is not None
        flipped = int((one.mask != other.mask).sum())
        assert flipped <= FLIPPED_PIXELS
        assert abs(one.score - other.score) <= score_slack(flipped, one.area)


def key(found: Detection) -> tuple[str, tuple[float, ...], float]:
    return found.class_name, found.box, found.score
