"""The canary: parts that answer as recorded or plausibly pass, others stop with what they answered and why."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from geneval.canary.check import AS_RECORDED, PLAUSIBLE, CanaryFailed, differences, run_canary
from geneval.canary.pictures import color_requests, noise, pictures
from geneval.canary.records import Part, Record, find_record, write_record
from geneval.settings import Evaluator
from geneval.verdict import VerdictOptions
from genloop.records import COLORS, PALETTE, Detection
from genloop.shapes.detector import ShapesDetector
from jobs import evaluate
from tests import runs
from tests.worlds.tiny_mask2former import mask2former_folder

SHAPES = {name: Part(name, "shapes", {}, {}) for name in ("detector", "colors")}
DIGESTS = {
    "sign": "a5eb0ff69281",
    "ball": "25d4d290f4c3",
    "tiles": "a5e5318f6684",
    "noise": "5fa1757bb490",
    "discs": "ef5f0564031e",
    "squares": "95a3ac946287",
}
EVERYDAY = ("stop sign", "sports ball", "clock", "dog")


class Everyday:
    """Finds what is drawn by where it is drawn: `score` for the sign, the ball and the clock."""

    classes = EVERYDAY

    def __init__(self, score: float = 0.9, alone: float = 0.0, shift: float = 0.0) -> None:
        self.score, self.alone, self.shift = score, alone, shift

    def detect(self, images):
        score = self.score + (self.alone if len(images) == 1 else 0)
        sign = Detection("stop sign", score, (40.0 + self.shift, 16.0, 216.0 + self.shift, 192.0))
        clock = Detection("clock", score / 2, (170.0, 22.0, 294.0, 146.0))
        return [[sign] if image.shape[1] == 256 else [clock] if image.shape[1] == 320 else [] for image in images]


class ByTable:
    """Names colours by the nearest of the drawn ones, as ten times the closeness; `order` gives it other names."""

    def __init__(self, order=tuple(range(10)), gain: float = 10.0) -> None:
        self.order, self.gain = list(order), gain

    def scores(self, requests):
        values = np.array([PALETTE[color] for color in COLORS], dtype=np.float32)
        found = []
        for image, detections in requests:
            centers = [((one.box[1] + one.box[3]) / 2, (one.box[0] + one.box[2]) / 2) for one in detections]
            pixels = np.array([image[int(y), int(x)] for y, x in centers], dtype=np.float32)
            apart = np.abs(pixels[:, None] - values).mean(axis=2)
            found.append((self.gain * (1 - apart / 255))[:, self.order].astype(np.float32))
        return found


def parts(place: Path | None = None, **options: object) -> dict[str, Part]:
    """Both parts of an evaluator that nobody knows, with their checkpoint at `place`."""
    weights = {"checkpoint": "ab" * 32}
    return {name: Part(name, "everyday", options, weights, place) for name in ("detector", "colors")}


def evaluator(detector=None, colors=None) -> Evaluator:
    return Evaluator(detector or Everyday(), colors or ByTable(), VerdictOptions())


def refusal(evaluator: Evaluator, ours: dict[str, Part]) -> str:
    """The one line of a canary that fails."""
    with pytest.raises(CanaryFailed) as error:
        run_canary(evaluator, ours)
    assert error.value.exit_code == 2 and "\n" not in str(error.value)
    return str(error.value)


def test_the_pictures_are_the_same_bytes_everywhere():
    shown = {**pictures(), **{name: image for name, (image, _) in color_requests().items()}}
    digests = {name: hashlib.sha256(image.tobytes()).hexdigest()[:12] for name, image in shown.items()}
    assert digests == DIGESTS
    assert (noise(3, 5, key=1) != noise(3, 5, key=2)).any()
    assert len({image.shape for image in pictures().values()}) == 4


def test_the_exact_detector_is_held_against_its_record_exactly():
    shapes = ShapesDetector()
    outcomes = run_canary(Evaluator(shapes, shapes, VerdictOptions()), SHAPES)
    assert {name: outcome.outcome for name, outcome in outcomes.items()} == dict.fromkeys(SHAPES, AS_RECORDED)
    record = find_record(SHAPES["detector"])
    assert record is not None and record.tolerance == 0
    seen = json.loads(json.dumps(outcomes["detector"].seen))
    seen["tiles"]["circle"][2] -= 1
    assert differences("detector", seen, record) == [
        "finds 'circle' in picture 'tiles' as [1.0, [16.0, 4.0, 23.0, 11.0], 4], "
        "recorded [1.0, [16.0, 4.0, 23.0, 11.0], 5]"
    ]


def test_another_detector_under_a_recorded_name_is_refused():
    line = refusal(evaluator(), {"detector": SHAPES["detector"]})
    assert line.startswith("canary: detector shapes ") and "; likely " in line and "canary=off" in line


def test_unknown_weights_must_be_plausible():
    outcomes = run_canary(evaluator(), parts())
    assert {outcome.outcome for outcome in outcomes.values()} == {PLAUSIBLE}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"detector": Everyday(0.03)},
            "gives a drawn stop sign, ball and clock at most 0.000; likely weights that were",
        ),
        ({"detector": Everyday(float("nan"))}, "that is no number; likely a broken kernel"),
        ({"detector": Everyday(1.5)}, "gives a score outside of 0..1 in picture 'sign'"),
        ({"detector": Everyday(0.5, alone=0.2)}, "answers otherwise when a picture comes alone: gives 'stop sign'"),
        ({"colors": ByTable([1, 0, *range(2, 10)])}, "calls 8 of ten discs by their colours, a red one orange"),
        ({"colors": ByTable(gain=float("inf"))}, "gives scores of 'discs' that are no numbers"),
        ({"colors": ByTable([0, *range(9, 0, -1)])}, "; likely another CLIP variant"),
    ],
)
def test_what_cannot_be_right_stops_with_its_likely_cause(wrong, message):
    assert message in refusal(evaluator(**wrong), parts())


def test_a_class_that_a_detector_does_not_know_is_no_answer():
    detector = Everyday()
    detector.classes = ("clock",)
    assert "finds 'stop sign', a class that it says it does not know" in refusal(evaluator(detector), parts())


def test_a_part_may_check_itself():
    colors = ByTable()
    colors.self_check = lambda: ["was trained with QuickGELU and runs GELU"]
    assert "canary: colors everyday was trained with QuickGELU" in refusal(evaluator(colors=colors), parts())


def test_answers_that_were_noted_bind_what_comes_after(tmp_path):
    ours = parts(tmp_path / "weights.canary.json", preprocess="a")
    for outcome in run_canary(evaluator(), ours).values():
        assert write_record(outcome.part, outcome.seen, {"device": "cpu"}) == tmp_path / "weights.canary.json"
    near = evaluator(Everyday(0.905, shift=1.0), ByTable(gain=10.05))
    assert {outcome.outcome for outcome in run_canary(near, ours).values()} == {AS_RECORDED}
    line = refusal(evaluator(Everyday(0.8)), ours)
    assert "gives 'stop sign' in picture 'sign' 0.800, recorded 0.900; likely another config or preprocessing" in line
    assert "canary=record (another out) takes this for right" in line
    assert "gives 'stop sign' in picture 'sign' 0.200, recorded 0.900; likely a broken kernel" in refusal(
        evaluator(Everyday(0.2)), ours
    )
    assert "puts 'stop sign' in picture 'sign' at [80.0," in refusal(evaluator(Everyday(shift=40.0)), ours)
    assert "likely another CLIP variant or activation (QuickGELU)" in refusal(evaluator(colors=ByTable(gain=11)), ours)
    assert run_canary(evaluator(Everyday(0.8)), ours, recording=True)["detector"].outcome == PLAUSIBLE
    others = {name: replace(part, options={"preprocess": "b"}) for name, part in ours.items()}
    assert run_canary(evaluator(Everyday(0.8)), others)["detector"].outcome == PLAUSIBLE  # of options not recorded


def test_a_note_about_other_weights_is_no_licence_for_these(tmp_path):
    ours = parts(tmp_path / "weights.canary.json", preprocess="a")
    write_record(ours["detector"], {"sign": {}}, {})
    changed = {name: replace(part, weights={"checkpoint": "cd" * 32}) for name, part in ours.items()}
    line = refusal(evaluator(), changed)
    assert (
        "canary: detector everyday has weights cdcdcdcd, " in line and "weights.canary.json is about abababab" in line
    )
    assert "canary=record (another out) takes these for right" in line
    write_record(changed["detector"], run_canary(evaluator(), changed, recording=True)["detector"].seen, {})
    assert run_canary(evaluator(), changed)["detector"].outcome == AS_RECORDED
    assert find_record(ours["detector"]) is not None


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (Everyday(shift=float("nan")), "a box of picture 'sign' that is no number; likely a broken kernel"),
        (Everyday(alone=-0.5), "answers otherwise when a picture comes alone: gives 'stop sign'"),
    ],
)
def test_a_record_does_not_excuse_what_is_broken(tmp_path, wrong, message):
    ours = parts(tmp_path / "weights.canary.json")
    write_record(ours["detector"], run_canary(evaluator(), ours)["detector"].seen, {})
    assert message in refusal(evaluator(wrong), ours)


def test_noting_again_replaces_what_was_noted_of_the_same_part_only(tmp_path):
    ours = parts(tmp_path / "weights.canary.json")
    write_record(ours["detector"], {"sign": {}}, {})
    write_record(ours["colors"], {"discs": [[1.0]]}, {})
    write_record(ours["detector"], {"ball": {}}, {})
    found = {name: find_record(part) for name, part in ours.items()}
    assert found["detector"] == Record({"ball": {}}, 0.02, tmp_path / "weights.canary.json")
    assert found["colors"] == Record({"discs": [[1.0]]}, 0.1, tmp_path / "weights.canary.json")
    assert find_record(replace(ours["colors"], weights={"checkpoint": "cd" * 32})) is None
    assert write_record(replace(ours["colors"], weights={}), {}, {}) is None


NOTE = {
    "part": "detector",
    "kind": "everyday",
    "options": {},
    "weights": {"checkpoint": "ab" * 32},
    "seen": {"sign": {"dog": [0.9, [0.0, 0.0, 1.0, 1.0], 1]}},
}


@pytest.mark.parametrize(
    "records",
    [
        None,
        {},
        [1],
        ["seen"],
        [{}],
        [NOTE | {"seen": None}],
        [NOTE | {"seen": {}}],  # would compare nothing
        [NOTE | {"seen": {"sign": {"dog": 5}}}],
        [NOTE | {"seen": {"sign": {"dog": ["a", [0, 0, 1, 1], 1]}}}],
        [NOTE | {"seen": {"sign": {"dog": [0.9, [0], 1]}}}],
        [NOTE | {"tolerance": "x"}],
        [NOTE | {"tolerance": -1}],
        [NOTE | {"tolerance": float("nan")}],  # would let everything pass
        [NOTE | {"part": "colors"}],
    ],
)
def test_a_damaged_note_is_refused_by_name(tmp_path, records):
    place = tmp_path / "weights.canary.json"
    place.write_text(json.dumps({"records": [NOTE]}))
    assert find_record(parts(place)["detector"]) == Record(NOTE["seen"], 0.02, place)
    place.write_text(json.dumps({"records": records}))
    with pytest.raises(ValueError, match=r"weights\.canary\.json: not"):
        find_record(parts(place)["detector"])


def test_a_damaged_note_stops_an_evaluation_before_it_starts(tmp_path, capsys):
    folder = mask2former_folder(tmp_path / "weights")
    note = tmp_path / "weights.canary.json"
    note.write_text("{")
    words = ["canary=only", "colors=shapes", "detector.kind=hf_mask2former", f"detector.options.checkpoint={folder}"]
    line = runs.refusal(evaluate, [*words, f"out={tmp_path / 'out'}"], tmp_path, capsys)
    assert f"{note}: not a file of canary=record; remove it" in line
