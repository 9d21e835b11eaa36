"""What benchmarks/geneval.py compares with: the published way finds what ours finds."""

from pathlib import Path

import numpy as np
import torch

from benchmarks.geneval_published import boxes, detections
from geneval.detectors.mask2former_detector import Mask2FormerDetector
from genloop.models.mask2former.config import Preparation
from genloop.models.mask2former.load import load_mask2former
from tests.worlds.tiny_mask2former import SCALE, mask2former_folder


def test_the_published_way_finds_the_same(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    network = load_mask2former(mask2former_folder(tmp_path / "network"))
    detector = Mask2FormerDetector(network, Preparation("mmdet3", SCALE))
    blocks = np.kron(np.random.default_rng(3).integers(0, 256, (5, 5, 3)), np.ones((20, 20, 1))).astype(np.uint8)
    for image in (blocks[:96, :96], blocks[:61, :30]):
        theirs, ours = detections(detector, image), detector.detect([image])[0]
        assert [(one.class_name, one.box) for one in theirs] == [(one.class_name, one.box) for one in ours]
        np.testing.assert_allclose([one.score for one in theirs], [one.score for one in ours], rtol=0, atol=1e-5)
        assert len({one.area for one in ours}) > 1
        for one, other in zip(theirs, ours):
            assert one.mask is not None and other.mask is not None and (one.mask == other.mask).all()


def test_published_boxes_are_around_the_masks() -> None:
    masks = torch.zeros(2, 6, 7, dtype=torch.bool)
    masks[1, 2:5, 3:4] = True
    assert boxes(masks) == [(0, 0, 0, 0), (3, 2, 4, 5)]
