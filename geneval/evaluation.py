"""Samples -> rows: read the images, detect, judge; one row an image, nothing dropped."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from geneval.folder import PromptFolder, Sample
from geneval.judging import Judged, classes_of, judge_images
from geneval.settings import DetectorSettings, Evaluator
from geneval.verdict import details
from genloop import terminal
from genloop.data.image_reader import ImageReader, UnreadableImage, image_size
from genloop.data.masks import encode_mask
from genloop.job import note
from genloop.reading import parse_json
from genloop.records import Prompt, Verdict
from genloop.runs.rows import EvaluatedRow

UNREADABLE = "unreadable: "  # opens the reason of an image that does not decode; it counts as wrong
_UNREAD = Judged(Verdict(False, ""), {}, (), None)


def check_fit(folders: Sequence[PromptFolder], images: Path, detector: DetectorSettings) -> None:
    """Warn where the detector knows no class of any prompt; ValueError where it was not made for images so large."""
    asked = {name for folder in folders for name in classes_of(folder.prompt)}
    if asked and asked.isdisjoint(detector.maker.classes(detector.options)):
        names = ", ".join(sorted(asked)[:3]) + (", ..." if len(asked) > 3 else "")
        terminal.err(
            f"genloop: warning: detector {detector.kind} knows none of the classes of {images} ({names}):"
            " with unknown_classes=absent every one of them counts as not found"
        )
    check_size = getattr(detector.maker, "check_size", None)
    if check_size is None:
        return
    for sample in (sample for folder in folders for sample in folder.samples):
        if size := image_size(images / sample.image):
            try:
                check_size(detector.options, *size)
            except ValueError as error:
                raise ValueError(f"{images / sample.image}: {error}") from None


def evaluate(samples: Sequence[Sample], images: Path, evaluator: Evaluator) -> list[EvaluatedRow]:
    """The row of every sample, in their order; all images go to the detector in one call."""
    with ImageReader(images) as reader:
        pixels = reader.take([sample.image for sample in samples])
    return judge_samples(samples, pixels, evaluator)


def judge_samples(
    samples: Sequence[Sample],
    pixels: Sequence[np.ndarray | UnreadableImage],
    evaluator: Evaluator,
    *,
    masks: bool = False,
    seen: Callable[[int], None] | None = None,
) -> list[EvaluatedRow]:
    """The row of every sample from its pixels (H, W, 3), or from why there are none; with `masks` those of objects.

    `seen` is told how many more samples have been looked at, and may raise to stop.
    """
    readable = [(sample.prompt, image) for sample, image in zip(samples, pixels) if isinstance(image, np.ndarray)]
    if seen is not None:
        seen(len(samples) - len(readable))
    with note(f"images {samples[0].image} to {samples[-1].image}"):
        images, prompts = [image for _, image in readable], [prompt for prompt, _ in readable]
        judged = iter(judge_images(images, prompts, evaluator, masks=masks, seen=seen) if readable else ())
    rows = []
    for sample, image in zip(samples, pixels, strict=True):
        if isinstance(image, UnreadableImage):
            rows.append(_row(sample, None, _UNREAD, f"{UNREADABLE}{image}", masks=masks))
        else:
            found = next(judged)
            rows.append(_row(sample, (image.shape[1], image.shape[0]), found, found.verdict.reason, masks=masks))
    return rows


def _row(sample: Sample, size: tuple[int, int] | None, judged: Judged, reason: str, *, masks: bool) -> EvaluatedRow:
    row: dict[str, Any] = {
        "prompt_index": sample.prompt.index,
        "sample": sample.number,
        "prompt": sample.prompt.text,
        "tag": sample.prompt.tag,
        "image": sample.image,
        "size": size,
        "correct": judged.verdict.correct,
        "reason": reason,
        "details": details(judged.objects),
        "areas": {name: [found.area for found in kept] for name, kept in judged.objects.items()},
        "colors": [
            {"clause": part.clause, "named": list(part.named), "margins": list(part.margins)} for part in judged.colors
        ],
        "distance": judged.distance,
        "prompt_source": "prompt" if sample.rewritten is None else "rewritten",
    }
    row |= {"masks": _masks(sample.prompt, judged)} if masks else {}
    row |= {} if sample.rewritten is None else {"rewritten_prompt": sample.rewritten}
    return EvaluatedRow(**row, metadata=parse_json(sample.metadata))


def _masks(prompt: Prompt, judged: Judged) -> dict[str, list[str | None]]:
    """{class of the prompt: the encoded mask of each kept object}, the same whatever else a detector made."""
    return {
        name: [None if found.mask is None else encode_mask(found.mask) for found in kept]
        for name, kept in judged.objects.items()
        if name in classes_of(prompt)
    }
