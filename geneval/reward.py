"""GenEval as a reward for trainers: images in memory -> whether each shows its prompt, how nearly, and what it lacks.

reward = GenevalReward.load(detector="shapes", colors="shapes")
rewards = reward(images, metadata)                  # one Reward an image; also reward(image, its metadata)
pairs = preference_pairs(rewards, prompt_numbers)   # [(better, worse), ...] of each prompt
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Union, overload

import numpy as np
from pydantic_core import PydanticCustomError

from geneval.judging import Judged, judge_images
from geneval.reasons import in_words
from geneval.settings import ColorSettings, DetectorSettings, Evaluator, EvaluatorKeys, build_evaluator, check_evaluator
from geneval.verdict import VerdictOptions, clause_reasons
from genloop.config import Settings, parse_options
from genloop.data.image_reader import UnreadableImage, read_image
from genloop.data.images import decoding_errors, to_uint8, upright_rgb
from genloop.data.prompts import parse_metadata
from genloop.reading import parse_json
from genloop.records import Prompt

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

PromptLike = Prompt | Mapping[str, Any] | str  # ours, a GenEval metadata object, or one as JSON text
ImageLike = Union["Image", np.ndarray, "Tensor", str, PathLike[str]]
_SLACK = 0.01  # decoders leave [0, 1] by a little; what leaves it by more is of another range


class Reward(NamedTuple):
    """What an image earns. `strict` is GenEval's verdict, `partial` the share of what was asked for, in [0, 1].

    `reasons` are GenEval's, one a failed clause; `words` says the same in the words of prompts, "" when all is there.
    """

    strict: bool
    partial: float
    reasons: tuple[str, ...]
    words: str


class GenevalReward:
    """Judges images by a detector, a colour classifier and GenEval's rules. No image's reward depends on the others."""

    def __init__(self, evaluator: Evaluator) -> None:
        self.evaluator = evaluator

    @classmethod
    def load(
        cls,
        detector: DetectorSettings | Mapping[str, Any] | str,
        colors: ColorSettings | Mapping[str, Any] | str,
        *,
        options: VerdictOptions | Mapping[str, Any] | None = None,
        resolve: Callable[[str], Path] = Path,
        device: str = "cpu",
    ) -> "GenevalReward":
        """From names, or {"kind": ..., "options": {...}}. `resolve` turns names of checkpoints into folders.

        Raises ValueError or FileNotFoundError in one line, before anything is loaded.
        """
        given = {"detector": detector, "colors": colors, "options": options or {}}
        try:
            keys = parse_options(EvaluatorKeys, {key: _plain(value) for key, value in given.items()})
        except PydanticCustomError as error:
            raise ValueError(str(error).lstrip(".")) from None
        check_evaluator(keys, resolve)
        return cls(build_evaluator(keys, resolve, device))

    @overload
    def __call__(self, images: ImageLike, prompts: PromptLike) -> Reward: ...  # type: ignore[overload-overlap]

    @overload
    def __call__(
        self, images: "Sequence[ImageLike] | np.ndarray | Tensor", prompts: Sequence[PromptLike]
    ) -> list[Reward]: ...

    def __call__(self, images: Any, prompts: PromptLike | Sequence[PromptLike]) -> Reward | list[Reward]:
        """One prompt per image -> one reward each; one image and its prompt -> its reward.

        Images: PIL images, paths, arrays (H, W, 3) uint8 or tensors (3, H, W) in [0, 1], their sizes may differ; or one
        batch (B, H, W, 3) uint8 or (B, 3, H, W). Tensors become 8-bit pixels as `generate` writes them. A file that
        does not decode earns nothing. Raises ValueError, FileNotFoundError.
        """
        if isinstance(prompts, Prompt | Mapping | str):
            return self([images], [prompts])[0]
        if len(images) != len(prompts):
            raise ValueError(f"one prompt per image: found {len(images)} images, {len(prompts)} prompts")
        asked = [self.prompt(given, index) for index, given in enumerate(prompts)]
        pixels = [_pixels(image, index) for index, image in enumerate(images)]
        shown = [(image, prompt) for image, prompt in zip(pixels, asked) if isinstance(image, np.ndarray)]
        rewards = iter(judge_rewards([image for image, _ in shown], [prompt for _, prompt in shown], self.evaluator))
        return [
            Reward(False, 0.0, (f"unreadable: {image}",), "unreadable") if isinstance(image, str) else next(rewards)
            for image in pixels
        ]

    def prompt(self, given: PromptLike, index: int = 0) -> Prompt:
        """A prompt with its metadata, checked; `index` names it in errors. ValueError in one line."""
        where = f"prompts[{index}]"
        if isinstance(given, str):
            if not given.lstrip().startswith("{"):
                raise ValueError(
                    f"{where}: {given!r} is text alone; give its GenEval metadata, a dict or a JSON object"
                )
            given = parse_json(given, where, once=True)
        if isinstance(given, Prompt):
            if given.tag is None:
                raise ValueError(f"{where}: {given.text!r} has no GenEval metadata to judge by")
            given = given.metadata()
        return parse_metadata(given, index, where=where, classes=self.evaluator.detector.classes)


def judge_rewards(images: Sequence[np.ndarray], prompts: Sequence[Prompt], evaluator: Evaluator) -> list[Reward]:
    """One prompt per image (H, W, 3) uint8 -> their rewards; neither is checked."""
    judged = judge_images(images, prompts, evaluator)
    return [_reward(prompt, found, evaluator.options) for prompt, found in zip(prompts, judged)]


def _reward(prompt: Prompt, judged: Judged, options: VerdictOptions) -> Reward:
    reasons = tuple(judged.verdict.reason.split("\n")) if judged.verdict.reason else ()
    return Reward(
        judged.verdict.correct, partial_credit(prompt, judged, options), reasons, in_words(prompt, judged.verdict)
    )


def partial_credit(prompt: Prompt, judged: Judged, options: VerdictOptions) -> float:
    """The share of a prompt's atoms that an image satisfies, in [0, 1]; 1 exactly when the verdict is correct.

    Atoms are, for every clause, each object asked for (satisfied when one is found for it), each of these objects'
    colours (once all of them are found: GenEval looks at no colour before), and its relation. Each object beyond what
    an exclude clause allows is one more atom, never satisfied: for "four cats", three earn 3/4, five 4/5, eight 4/8,
    none 0. So any atom more that is satisfied raises the credit, and drawing more than was asked for lowers it.
    """
    named = {part.clause: part.named for part in judged.colors}
    reasons = clause_reasons(prompt, judged.objects, named, options)
    satisfied = total = 0
    for number, clause in enumerate(prompt.include):
        total += clause.count
        satisfied += min(clause.count, len(judged.objects.get(clause.class_name, ())))
        if clause.color is not None:
            total += clause.count
            satisfied += named.get(number, ()).count(clause.color)
        if clause.position is not None:
            total += 1
            satisfied += not reasons[number]
    for clause in prompt.exclude:
        total += max(0, len(judged.objects.get(clause.class_name, ())) - (clause.count - 1))
    return satisfied / total


def preference_pairs(
    rewards: Sequence[Reward], prompts: Sequence[Hashable], *, margin: float = 0.0
) -> list[tuple[int, int]]:
    """The best and the worst image of each prompt, (better, worse) as places in `rewards`.

    `prompts` says whose image each is. Left out are prompts whose best and worst differ by `margin` or less; of equals
    the first is taken.
    """
    groups: dict[Hashable, list[int]] = {}
    for place, (prompt, _) in enumerate(zip(prompts, rewards, strict=True)):
        groups.setdefault(prompt, []).append(place)
    pairs = []
    for places in groups.values():
        better = max(places, key=lambda place: rewards[place].partial)
        worse = min(places, key=lambda place: rewards[place].partial)
        if rewards[better].partial - rewards[worse].partial > margin:
            pairs.append((better, worse))
    return pairs


def _plain(value: Any) -> Any:
    """Settings as plain values."""
    return value.model_dump() if isinstance(value, Settings) else value


def _pixels(image: ImageLike, index: int) -> np.ndarray | str:
    """-> (H, W, 3) uint8, or why a file has none"""
    where = f"images[{index}]"
    if isinstance(image, str | PathLike):
        path = Path(image)
        if not path.is_file():
            raise FileNotFoundError(f"{where}: no such file: {path}")
        try:
            return read_image(path)
        except UnreadableImage as error:
            return str(error)
    if not isinstance(image, np.ndarray) and hasattr(image, "convert"):
        pillow: Any = image
        try:
            return upright_rgb(pillow)
        except decoding_errors() as error:  # it is decoded only now
            return " ".join(str(error).split())
    if not isinstance(image, np.ndarray) and hasattr(image, "detach"):  # of torch
        return _from_tensor(image, where)
    if (
        not isinstance(image, np.ndarray)
        or image.dtype != np.uint8
        or image.ndim != 3
        or image.shape[2] != 3
        or not image.size
    ):
        found = f"{getattr(image, 'dtype', type(image).__name__)} {getattr(image, 'shape', '')}".rstrip()
        raise ValueError(f"{where}: an array must be (H, W, 3) uint8, found {found}; a float image must be a tensor")
    return image


def _from_tensor(image: "Tensor", where: str) -> np.ndarray:
    """(3, H, W) in [0, 1] -> (H, W, 3) uint8"""
    if image.ndim != 3 or image.shape[0] != 3 or not image.is_floating_point() or not image.numel():
        raise ValueError(f"{where}: a tensor must be (3, H, W) of floats, found {tuple(image.shape)} {image.dtype}")
    low, high = (float(value) for value in image.detach().aminmax())
    if not (low >= -_SLACK and high <= 1 + _SLACK):  # NaN too
        raise ValueError(f"{where}: values must lie in [0, 1], found {low:.3g} to {high:.3g}; scale them")
    return to_uint8(image[None])[0]
