"""Scores of single images against their prompts: VQAScore (Lin et al. 2024), and the mean of any such scores."""

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import AfterValidator, Field

from genloop.config import Settings
from genloop.metrics.makers import ANY_QUESTION, Line, ScoreMaker, Tools
from genloop.protocols import Judge
from genloop.records import Prompt
from genloop.stats.resampling import drawn_mean

if TYPE_CHECKING:
    from torch import Tensor

PROMPT = "{prompt}"


def _has_prompt(template: str | None) -> str | None:
    if template is not None and PROMPT not in template:
        raise ValueError(f"does not mention {PROMPT}")
    return template


class VqaScoreOptions(Settings):
    """Keys of `metrics.vqa_score`."""

    template: Annotated[str | None, AfterValidator(_has_prompt)] = Field(
        None,
        description="the question, for judges that take any; null: the judge's own wording of the outcome. Published: "
        'Does this figure show "{prompt}"? Please answer yes or no.',
    )


class VqaScore(ScoreMaker):
    """P(yes) of the job's judge."""

    Options = VqaScoreOptions
    needs = frozenset({"prompt", "judge"})

    @classmethod
    def questions(cls, options: VqaScoreOptions) -> tuple[str, ...]:
        """The outcome, or any question."""
        return ("outcome",) if options.template is None else (ANY_QUESTION,)

    @classmethod
    def load(cls, options: VqaScoreOptions, tools: Tools) -> "VqaScorer":
        return VqaScorer(tools.judge(), options.template)

    @classmethod
    def conclude(cls, options: Any, name: str, rows: Sequence[Mapping[str, Any]], seed: int) -> list[Line]:
        return [mean_line(name, rows, [row["scores"][name] for row in rows], seed)]


class VqaScorer:
    """Asks a judge about each image."""

    def __init__(self, judge: Judge, template: str | None) -> None:
        self.judge, self.template = judge, template

    def scores(self, prompts: Sequence[Prompt], images: Sequence[np.ndarray]) -> list[float | None]:
        """One prompt per image (H, W, 3) uint8 -> P(yes), None where the judge gave no answer."""
        found: list[float | None] = [None] * len(images)
        for places, batch in batches_of_one_size(images):
            asked = [prompts[place] for place in places]
            for place, p in zip(places, self._ask(asked, batch).tolist()):
                found[place] = None if p != p else p
        return found

    def _ask(self, prompts: Sequence[Prompt], images: "Tensor") -> "Tensor":
        if self.template is None:
            return self.judge.p_yes("outcome", prompts, images)
        asker: Any = self.judge
        return asker.p_yes_to([self.template.replace(PROMPT, prompt.text) for prompt in prompts], images)


def batches_of_one_size(images: Sequence[np.ndarray]) -> "list[tuple[list[int], Tensor]]":
    """Images (H, W, 3) uint8 -> their places and pixels (B, 3, H, W) in [0, 1], by size."""
    import torch

    groups: dict[tuple[int, ...], list[int]] = {}
    for place, image in enumerate(images):
        groups.setdefault(image.shape, []).append(place)
    return [
        (places, torch.from_numpy(np.stack([images[place] for place in places])).permute(0, 3, 1, 2) / 255)
        for places in groups.values()
    ]


def mean_line(name: str, rows: Sequence[Mapping[str, Any]], values: Sequence[float | None], seed: int) -> Line:
    """The mean of what is not None with its interval over resampled prompts, one value a row."""
    known = [(value, owner) for value, owner in zip(values, owners(rows), strict=True) if value is not None]
    if not known:
        return Line(name, float("nan"), float("nan"), float("nan"), 0, "no image has a score")
    numbers, clusters = zip(*known)
    lost = len(values) - len(known)
    note = f"{len(set(clusters))} prompts" + (f"; {lost} images without a score" if lost else "")
    return Line(name, *drawn_mean(numbers, clusters, seed), len(known), note)


def owners(rows: Sequence[Mapping[str, Any]]) -> list[Hashable]:
    """Of every row its prompt; an image without one is its own."""
    indices = [row.get("prompt_index") for row in rows]
    return [("image", place) if index is None else index for place, index in enumerate(indices)]
