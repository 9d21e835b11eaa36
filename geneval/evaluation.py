"""Samples -> rows: read the images, detect, judge; one row an image, nothing dropped."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from geneval.folder import Sample
from geneval.images import UnreadableImage, read_image
from geneval.verdict import VerdictOptions, details, judge_objects, keep
from genloop.job import note
from genloop.protocols import ColorClassifier, Detector
from genloop.records import Detection, Verdict

UNREADABLE = "unreadable: "  # opens the reason of an image that does not decode; it counts as wrong


def evaluate(
    samples: Sequence[Sample],
    images: Path,
    detector: Detector,
    colors: ColorClassifier,
    options: VerdictOptions,
) -> list[dict[str, Any]]:
    """The row of every sample, in their order; all images go to the detector in one call."""
    pixels = [_read(images / sample.image) for sample in samples]
    readable = [image for image in pixels if isinstance(image, np.ndarray)]
    with note(f"images {samples[0].image} to {samples[-1].image}"):
        detections = iter(detector.detect(readable))
    rows = []
    for sample, image in zip(samples, pixels):
        if isinstance(image, str):
            rows.append(_row(sample, Verdict(False, UNREADABLE + image), {}))
            continue
        with note(f"image {sample.image}, prompt {sample.prompt.index} {sample.prompt.text!r}"):
            rows.append(_judged(sample, image, next(detections), detector, colors, options))
    return rows


def _read(path: Path) -> np.ndarray | str:
    """The pixels, or why there are none."""
    try:
        return read_image(path)
    except UnreadableImage as error:
        return str(error)


def _judged(
    sample: Sample,
    image: np.ndarray,
    detections: Sequence[Detection],
    detector: Detector,
    colors: ColorClassifier,
    options: VerdictOptions,
) -> dict[str, Any]:
    objects = keep(detections, sample.prompt, options, detector.classes)
    return _row(sample, judge_objects(image, sample.prompt, objects, colors, options), details(objects))


def _row(sample: Sample, verdict: Verdict, found: dict[str, list[list[float]]]) -> dict[str, Any]:
    return {
        "prompt_index": sample.prompt.index,
        "sample": sample.number,
        "prompt": sample.prompt.text,
        "tag": sample.prompt.tag,
        "image": sample.image,
        "correct": verdict.correct,
        "reason": verdict.reason,
        "details": found,
        "metadata": json.loads(sample.metadata),
    }
