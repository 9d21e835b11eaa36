"""Samples -> rows: read the images, detect, judge; one row an image, nothing dropped."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from geneval.folder import Sample
from geneval.images import UnreadableImage, read_image
from geneval.judging import Judged, judge_images
from geneval.settings import Evaluator
from geneval.verdict import details
from genloop.job import note
from genloop.records import Verdict

UNREADABLE = "unreadable: "  # opens the reason of an image that does not decode; it counts as wrong


def evaluate(samples: Sequence[Sample], images: Path, evaluator: Evaluator) -> list[dict[str, Any]]:
    """The row of every sample, in their order; all images go to the detector in one call."""
    pixels = [_read(images / sample.image) for sample in samples]
    readable = [(sample.prompt, image) for sample, image in zip(samples, pixels) if isinstance(image, np.ndarray)]
    with note(f"images {samples[0].image} to {samples[-1].image}"):
        judged = iter(judge_images([image for _, image in readable], [prompt for prompt, _ in readable], evaluator))
    unread = Judged(Verdict(False, ""), {}, (), None)
    rows = []
    for sample, image in zip(samples, pixels):
        found = next(judged) if isinstance(image, np.ndarray) else unread
        rows.append(_row(sample, found, UNREADABLE + image if isinstance(image, str) else found.verdict.reason))
    return rows


def _read(path: Path) -> np.ndarray | str:
    """The pixels, or why there are none."""
    try:
        return read_image(path)
    except UnreadableImage as error:
        return str(error)


def _row(sample: Sample, judged: Judged, reason: str) -> dict[str, Any]:
    return {
        "prompt_index": sample.prompt.index,
        "sample": sample.number,
        "prompt": sample.prompt.text,
        "tag": sample.prompt.tag,
        "image": sample.image,
        "correct": judged.verdict.correct,
        "reason": reason,
        "details": details(judged.objects),
        "areas": {name: [found.area for found in kept] for name, kept in judged.objects.items()},
        "colors": [
            {"clause": part.clause, "named": list(part.named), "margins": list(part.margins)} for part in judged.colors
        ],
        "distance": judged.distance,
        "metadata": json.loads(sample.metadata),
    }
