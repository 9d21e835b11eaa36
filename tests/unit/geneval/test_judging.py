"""Detectors that take their images one by one are looked after between two images; what is no number is no colour."""

import numpy as np
import pytest

from geneval.canary.check import run_canary
from geneval.canary.records import Part
from geneval.judging import judge_images
from geneval.settings import Evaluator
from geneval.verdict import VerdictOptions
from genloop.records import COLORS, Prompt
from genloop.rundir import RunFailed
from genloop.shapes.detector import ShapesDetector
from genloop.shapes.render import render
from genloop.shapes.scenes import scene_for
from tests.worlds.image_folders import small_set


class Counting(ShapesDetector):
    """Knows how many images each call brought."""

    def __init__(self, one_by_one: bool) -> None:
        self.one_by_one = one_by_one
        self.calls: list[int] = []

    def detect(self, images):
        self.calls.append(len(images))
        return super().detect(images)


def judged(detector: Counting, seen) -> list[bool]:
    prompts: list[Prompt] = small_set()[:4]
    images = [np.full((24, 24, 3), 150, dtype=np.uint8) for _ in prompts]
    return [one.verdict.correct for one in judge_images(images, prompts, evaluator_with(detector), seen=seen)]


def evaluator_with(detector: Counting) -> Evaluator:
    return Evaluator(detector, detector, VerdictOptions())


def test_only_slow_detectors_get_their_images_one_by_one_and_answer_the_same():
    slow, fast, told = Counting(True), Counting(False), []
    assert judged(slow, told.append) == judged(fast, told.append)
    assert (slow.calls, fast.calls, told) == ([1, 1, 1, 1], [4], [1, 1, 1, 1, 4])


def test_a_stop_does_not_wait_for_the_rest_of_a_batch_nor_for_the_canary():
    def stop(_: int) -> None:
        raise InterruptedError

    detector = Counting(True)
    with pytest.raises(InterruptedError):
        judged(detector, stop)
    with pytest.raises(InterruptedError):
        run_canary(evaluator_with(detector), {"detector": Part("detector", "shapes", {}, {})}, seen=stop)
    assert detector.calls == [1, 1]


class Numberless(ShapesDetector):
    """Names colours by what is no number, which has the highest place among numbers."""

    def scores(self, requests):
        return [np.full((len(detections), len(COLORS)), np.nan, dtype=np.float32) for _, detections in requests]


def test_scores_that_are_no_numbers_do_not_name_a_colour():
    (prompt,) = [prompt for prompt in small_set() if prompt.tag == "colors"][:1]
    image = render([scene_for(prompt, np.random.default_rng(0))])[0]
    exact = ShapesDetector()
    assert judge_images([image], [prompt], Evaluator(exact, exact, VerdictOptions()))[0].verdict.correct
    with pytest.raises(RunFailed, match="colours are no numbers"):
        judge_images([image], [prompt], Evaluator(exact, Numberless(), VerdictOptions()))
