"""The canary tells weights and preprocessing of Mask2Former apart, and takes no untrained ones for a detector."""

from pathlib import Path

import pytest

from geneval.canary.check import CanaryFailed, differences, observe_objects, run_canary
from geneval.canary.records import Part, Record
from geneval.settings import DetectorSettings, Evaluator
from geneval.verdict import VerdictOptions
from genloop.shapes.detector import ShapesDetector
from tests.worlds.tiny_mask2former import mask2former_folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return [mask2former_folder(tmp_path_factory.mktemp("weights") / f"seed-{seed}", seed=seed) for seed in (1, 2)]


def detector(folder: Path, preprocess: str):
    maker = DetectorSettings.maker_of("hf_mask2former")
    return maker.load(maker.Options(checkpoint=str(folder), preprocess=preprocess), Path, "cpu")


def test_another_preprocessing_and_other_weights_differ_from_what_was_recorded(folders):
    seen, again = (observe_objects(detector(folders[0], "mmdet3")).seen for _ in range(2))
    record = Record(seen, 0.02)
    assert differences("detector", again, record) == []
    for other in (detector(folders[0], "mmdet2"), detector(folders[1], "mmdet3")):
        assert differences("detector", observe_objects(other).seen, record) != []


def test_untrained_weights_do_not_pass(folders):
    evaluator = Evaluator(detector(folders[0], "mmdet3"), ShapesDetector(), VerdictOptions())
    part = Part("detector", "hf_mask2former", {"preprocess": "mmdet3"}, {"checkpoint": "ab" * 32})
    with pytest.raises(CanaryFailed, match=r"stop sign, ball and clock at most 0\.\d+"):
        run_canary(evaluator, {"detector": part})
