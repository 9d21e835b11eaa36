"""The rules of the verdict: what is kept, what each clause asks, what each reason says."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geneval.geometry import iou, relative_position
from geneval.verdict import VerdictOptions, color_requests, details, judge_objects, keep
from genloop.records import Clause, Detection, Prompt

OPTIONS = VerdictOptions()
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}

coordinates = st.integers(0, 100).map(float)
boxes = st.tuples(coordinates, coordinates, coordinates, coordinates)


def color_of(detection: Detection) -> str:
    """By the first coordinate of a box: 0 is red, 1 is blue, ..."""
    return ("red", "blue", "white")[int(detection.box[0])]


def found(name: str, *scores: float, box=(0.0, 0.0, 10.0, 10.0)) -> list[Detection]:
    return [Detection(name, score, box) for score in scores]


def asks(*include: Clause, tag: str = "two_object", exclude: tuple[Clause, ...] = ()) -> Prompt:
    return Prompt(0, "a prompt", tag, include, exclude)


def reason(prompt: Prompt, detections: Sequence[Detection], options: VerdictOptions = OPTIONS) -> str:
    objects = keep(detections, prompt, options)
    named = {clause: [color_of(one) for one in asked] for clause, asked in color_requests(prompt, objects).items()}
    verdict = judge_objects(prompt, objects, named, options)
    assert verdict.correct == (verdict.reason == "")
    return verdict.reason


def test_every_missing_class_has_its_line():
    prompt = asks(Clause("dog", 2), Clause("cat", 1))
    assert reason(prompt, found("dog", 0.9)) == "expected dog>=2, found 1\nexpected cat>=1, found 0"
    assert reason(prompt, found("dog", 0.9, 0.8) + found("cat", 0.5)) == ""


def test_scores_must_be_above_the_threshold_as_float32():
    prompt = asks(Clause("dog", 1))
    assert reason(prompt, found("dog", float(np.float32(0.3)))) == "expected dog>=1, found 0"
    assert reason(prompt, found("dog", float(np.nextafter(np.float32(0.3), np.float32(1))))) == ""


def test_counting_has_its_own_threshold_and_an_upper_bound():
    prompt = asks(Clause("dog", 2), tag="counting", exclude=(Clause("dog", 3),))
    assert reason(prompt, found("dog", 0.95, 0.9, 0.89)) == "expected dog>=2, found 1"
    assert reason(prompt, found("dog", 0.95, 0.91, 0.89)) == ""
    assert reason(prompt, found("dog", 0.95, 0.91, 0.92)) == "expected dog<3, found 3"


def test_only_the_most_confident_objects_are_asked_for_their_colour():
    red, blue, white = (found("car", s, box=(float(x), 0.0, 9.0, 9.0))[0] for x, s in enumerate((0.5, 0.9, 0.7)))
    assert reason(asks(Clause("car", 1, "red")), [red, blue]) == "expected red car>=1, found 0 red; and 1 blue"
    two_reds = asks(Clause("car", 2, "red"))
    assert reason(two_reds, [red, blue]) == "expected red car>=2, found 1 red; and 1 red, 1 blue"
    assert reason(two_reds, [red, blue, white]) == "expected red car>=2, found 0 red; and 1 blue, 1 white"


def test_positions_look_at_every_pair_and_name_the_horizontal_relation_first():
    prompt = asks(Clause("dog", 1), Clause("cat", 1, None, ("above", 0)), tag="position")
    dog = found("dog", 0.9, box=(40.0, 40.0, 50.0, 50.0))
    assert reason(prompt, dog + found("cat", 0.9, box=(40.0, 10.0, 50.0, 20.0))) == ""
    corner = found("cat", 0.9, box=(70.0, 70.0, 80.0, 80.0))
    assert reason(prompt, dog + corner) == "expected cat above target, found right of and below target"
    assert reason(prompt, dog + found("cat", 0.9, box=dog[0].box)) == "expected cat above target, found  target"


def test_a_position_without_its_target_says_so():
    prompt = asks(Clause("dog", 1), Clause("cat", 1, None, ("above", 0)), tag="position")
    assert reason(prompt, found("cat", 0.9)) == "expected dog>=1, found 0\nno target for cat to be above"
    with pytest.raises(IndexError):
        reason(asks(Clause("cat", 1, None, ("above", 1))), found("cat", 0.9))


def test_of_equal_scores_the_later_detection_comes_first():
    first, second = (found("car", 0.9, box=(float(x), 0.0, 9.0, 9.0))[0] for x in (0, 1))
    assert reason(asks(Clause("car", 1, "blue")), [first, second]) == ""
    assert reason(asks(Clause("car", 1, "red")), [first, second]) != ""


def test_objects_are_cut_to_the_most_confident_before_overlaps_are_dropped():
    same, apart = (0.0, 0.0, 10.0, 10.0), (50.0, 50.0, 60.0, 60.0)
    detections = [Detection("dog", 0.9, same), Detection("dog", 0.8, same), Detection("dog", 0.7, apart)]
    options = VerdictOptions(max_objects=2, max_overlap=0.5)
    assert details(keep(detections, asks(), options)) == {"dog": [[*same, pytest.approx(0.9)]]}
    wider = keep(detections, asks(), VerdictOptions(max_overlap=0.5))
    assert [detection.box for detection in wider["dog"]] == [same, apart]


def test_kept_classes_come_in_the_order_of_the_detector():
    detections = found("cat", 0.9) + found("dog", 0.9) + found("cow", 0.1)
    assert list(keep(detections, asks(), OPTIONS, ["cow", "dog", "cat"])) == ["dog", "cat"]
    assert list(keep(detections, asks(), OPTIONS)) == ["cat", "dog"]


@given(scores=st.lists(st.floats(0, 1, width=32), max_size=30), limit=st.integers(0, 20))
def test_what_is_kept_is_sorted_above_the_threshold_and_bounded(scores, limit):
    kept = keep(found("dog", *scores), asks(), VerdictOptions(max_objects=limit)).get("dog", [])
    assert [d.score for d in kept] == sorted((s for s in scores if s > np.float32(0.3)), reverse=True)[:limit]


@given(a=boxes, b=boxes, dead_zone=st.sampled_from([0.0, 0.1, 0.5]))
def test_swapped_boxes_have_the_opposite_relations(a, b, dead_zone):
    first, second = np.array(a, dtype=np.float32), np.array(b, dtype=np.float32)
    there = relative_position(first, second, dead_zone)
    assert {OPPOSITE[relation] for relation in there} == set(relative_position(second, first, dead_zone))
    assert len(there) <= 2


@given(a=boxes, b=boxes)
def test_overlap_is_symmetric_and_one_with_itself(a, b):
    first, second = np.array(a, dtype=np.float32), np.array(b, dtype=np.float32)
    assert iou(first, second[None]) == iou(second, first[None])
    upright = np.array([min(a[0], a[2]), min(a[1], a[3]), max(a[0], a[2]), max(a[1], a[3])], dtype=np.float32)
    assert iou(upright, upright[None]) == pytest.approx(1)


@pytest.mark.parametrize("options", [{"threshold": 1.5}, {"max_objects": -1}, {"position_threshold": -0.1}])
def test_settings_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        VerdictOptions(**options)
