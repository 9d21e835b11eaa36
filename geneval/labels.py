"""Labels for judges, from verdicts: is the image right, can it be told already, can a path from here still succeed.

For a path whose preview after step s is judged as if it were final, and whose K continuations from there (the path
itself first) end in images that are right or wrong:
    outcome    of the final image: whether it is right
    potential  at s: the share of the K continuations that end right
    clarity    at s: the share of the K continuations whose verdict the preview already has; with a threshold 1 or 0
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from geneval.judging import judge_images
from geneval.reasons import in_words
from geneval.settings import Evaluator
from genloop.data.judge.examples import JudgeExample
from genloop.records import Detection, Prompt, Seed, Verdict, color_names


class Labeller:
    """Gives verdicts on images; an image that comes up again under its prompt is judged once."""

    def __init__(self, evaluator: Evaluator) -> None:
        self.evaluator = evaluator

    def verdicts(self, prompts: Sequence[Prompt], pixels: np.ndarray) -> list[Verdict]:
        """One prompt per image (B, H, W, 3) uint8 -> their verdicts."""
        keys = [(prompt.text, image.tobytes()) for prompt, image in zip(prompts, pixels, strict=True)]
        first = {key: row for row, key in reversed(list(enumerate(keys)))}
        rows = sorted(first.values())
        found = judge_images([pixels[row] for row in rows], [prompts[row] for row in rows], self.evaluator)
        known = {keys[row]: judged.verdict for row, judged in zip(rows, found, strict=True)}
        return [known[key] for key in keys]

    def reason(self, prompt: Prompt, verdict: Verdict) -> str:
        """What is wrong with an image, in plain words; "" when nothing is."""
        return in_words(prompt, verdict)

    def objects(self, images: Sequence[np.ndarray]) -> list[tuple[Sequence[Detection], list[str]]]:
        """For each image (H, W, 3) uint8 its detections and the names of their colours."""
        detector, colors, _ = self.evaluator
        found = detector.detect(images)
        scores = colors.scores(list(zip(images, found, strict=True)))
        return [(detections, color_names(of)) for detections, of in zip(found, scores, strict=True)]


def step_labels(
    preview_is_right: bool, ends_are_right: Sequence[bool], clarity_threshold: float | None = None
) -> dict[str, float]:
    """The labels of a preview from its own verdict and those of the K continuations."""
    potential = sum(ends_are_right) / len(ends_are_right)
    clarity = potential if preview_is_right else 1 - potential
    if clarity_threshold is not None:
        clarity = float(clarity >= clarity_threshold)
    return {"clarity": clarity, "potential": potential}


def label_paths(
    labeller: Labeller,
    paths: Sequence[tuple[Prompt, Seed]],
    images: Mapping[int, np.ndarray],
    others: Mapping[int, Sequence[np.ndarray]],
    clarity_threshold: float | None = None,
) -> Iterator[tuple[JudgeExample, np.ndarray]]:
    """Every image of the paths as an example, with its pixels (H, W, 3) uint8.

    images: step -> (B, H, W, 3) uint8, the previews and, at the last step, the finals; others: step of a preview ->
    the finals of its other continuations, each (B, H, W, 3).
    """
    prompts = [prompt for prompt, _ in paths]
    num_steps = max(images)
    found = {step: labeller.verdicts(prompts, pixels) for step, pixels in images.items()}
    ends = {
        step: [found[num_steps], *(labeller.verdicts(prompts, pixels) for pixels in others.get(step, ()))]
        for step in images
    }
    for row, (prompt, seed) in enumerate(paths):
        for step, pixels in images.items():
            verdict = found[step][row]
            questions: dict[str, float] = {"outcome": float(verdict.correct)}
            if step < num_steps:
                questions = step_labels(verdict.correct, [end[row].correct for end in ends[step]], clarity_threshold)
            key = f"{prompt.index:05d}-{seed.sample:04d}-{seed.candidate:04d}-{step:03d}"
            place = (seed.sample, seed.candidate, step, num_steps)
            yield JudgeExample(key, "generate", prompt, *place, questions, in_words(prompt, verdict)), pixels[row]
