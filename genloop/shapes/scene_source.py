"""Drawn scenes as a source of a judge's examples: every sentence of a contrast about both of its scenes."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from genloop.data.images import encode_png
from genloop.data.judge.examples import JudgeExample, split_of, to_sample
from genloop.data.judge.sources import Samples
from genloop.records import Detection, Prompt, Verdict
from genloop.shapes.damage import spoil
from genloop.shapes.judge_scenes import COLOR_NAMES, SHAPE_NAMES, contrast, seen_cells
from genloop.shapes.render import render

CELL_NAMES: dict[str, Sequence[str]] = {"shapes": SHAPE_NAMES, "colors": COLOR_NAMES}  # of the planes of `cells.npy`


class Labels(Protocol):
    """What gives verdicts on images; pixels are (B, H, W, 3) uint8."""

    def verdicts(self, prompts: Sequence[Prompt], pixels: np.ndarray) -> list[Verdict]:
        """One prompt per image -> their verdicts."""
        ...

    def reason(self, prompt: Prompt, verdict: Verdict) -> str:
        """What is wrong, in plain words."""
        ...

    def objects(self, images: Sequence[np.ndarray]) -> list[tuple[Sequence[Detection], list[str]]]:
        """For each image (H, W, 3) its detections and the names of their colours."""
        ...


def cells_of(stacks: Iterable[np.ndarray], labels: Labels) -> dict[bytes, np.ndarray]:
    """The cells of every distinct image of (B, H, W, 3) stacks, by the image's bytes."""
    images = {image.tobytes(): image for stack in stacks for image in stack}
    found = labels.objects(list(images.values()))
    return {key: seen_cells(image, *one) for (key, image), one in zip(images.items(), found, strict=True)}


@dataclass(frozen=True, slots=True)
class SceneSource:
    """Contrasts: pairs of drawn scenes; a share of the scenes is spoilt as generated images are."""

    num_items: int  # pairs
    unit_size: int
    seed: int
    val_share: float
    spoilt: float
    labels: Callable[[], Labels]  # loaded when the first pair is asked for

    def samples(self, items: range) -> Samples:
        """(split, sample) of every sentence about every scene of these pairs."""
        labels = self.labels()
        for index in items:
            drawn = contrast(self.seed, index, self._split)
            images, rng = render(drawn.scenes), np.random.default_rng([self.seed, index, 3])
            for place, things in enumerate(drawn.scenes):
                if rng.random() < self.spoilt:
                    images[place] = spoil(images[place], things, rng)
            seen = cells_of([images], labels)
            pngs = [encode_png(image) for image in images]
            for number, found in enumerate(drawn.prompts):
                prompt = Prompt(index, found.text, found.tag, found.include, found.exclude)
                for scene, verdict in enumerate(labels.verdicts([prompt] * 2, images)):
                    key = f"scene-{index:07d}-{number}{scene}"
                    questions, reason = {"outcome": float(verdict.correct)}, labels.reason(prompt, verdict)
                    example = JudgeExample(key, "scenes", prompt, scene, number, 0, 0, questions, reason, CELL_NAMES)
                    yield self._split(prompt.text), to_sample(example, pngs[scene], seen[images[scene].tobytes()])

    def _split(self, text: str) -> str:
        return split_of(text, self.seed, self.val_share)
