"""The verdict as a judge: P(yes) is 1 where an image shows what its prompt asks for, else 0.

With the exact detector of the embedded world this is that world's oracle.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from geneval.judging import judge_images
from geneval.reasons import in_words
from geneval.settings import ColorSettings, DetectorSettings, Evaluator, EvaluatorKeys, build_evaluator, detector_maker
from genloop.config import Settings
from genloop.data.images import to_uint8
from genloop.records import Prompt, Verdict

if TYPE_CHECKING:
    from torch import Tensor


_SHAPES = EvaluatorKeys(detector=DetectorSettings(kind="shapes"), colors=ColorSettings(kind="shapes"))


class VerdictJudge:
    """Judges outcomes by a detector and GenEval's rules; implements the Judge and Critic protocols."""

    def __init__(self, evaluator: Evaluator) -> None:
        self.evaluator = evaluator

    def p_yes(self, question: str, prompts: Sequence[Prompt], images: "Tensor") -> "Tensor":
        """One prompt per image (B, 3, H, W) in [0, 1] -> (B,) of 0.0 and 1.0; the only question is "outcome".

        The images are judged as the 8-bit pixels that would be written.
        """
        if question != "outcome":
            raise ValueError(f"the verdict judge answers 'outcome' only, not {question!r}")
        return images.new_tensor([verdict.correct for verdict in self._verdicts(prompts, images)]).float()

    def reasons(self, prompts: Sequence[Prompt], images: "Tensor") -> list[str]:
        """One prompt per image (B, 3, H, W) in [0, 1] -> in plain words why it does not show it, "" where it does."""
        verdicts = self._verdicts(prompts, images)
        return [in_words(prompt, verdict) for prompt, verdict in zip(prompts, verdicts)]

    def flops(self, questions: Sequence[str], prompt: Prompt) -> float:
        """Detectors are not counted."""
        return 0.0

    def _verdicts(self, prompts: Sequence[Prompt], images: "Tensor") -> list[Verdict]:
        for prompt in prompts:
            if prompt.tag is None:
                raise ValueError(f"prompt {prompt.index} {prompt.text!r} has no GenEval metadata to judge by")
        return [judged.verdict for judged in judge_images(list(to_uint8(images)), prompts, self.evaluator)]


class ShapesOracle(VerdictJudge):
    """The oracle of the embedded world, and its maker: no options, nothing to load."""

    Options = Settings
    needs_metadata = True

    def __init__(self) -> None:
        super().__init__(build_evaluator(_SHAPES, Path))

    @classmethod
    def check(cls, options: Settings, resolve: Callable[[str], Path]) -> None:
        """There is nothing to refuse."""

    @classmethod
    def inputs(cls, options: Settings, resolve: Callable[[str], Path]) -> dict[str, Path]:
        """It reads no file."""
        return {}

    @classmethod
    def questions(cls, options: Settings, resolve: Callable[[str], Path]) -> tuple[str, ...]:
        """Only a finished image shows its prompt or does not; what it lacks can be said."""
        return ("outcome", "reason")

    @classmethod
    def classes(cls, options: Settings) -> Sequence[str]:
        """The shapes of the world."""
        return detector_maker("shapes").classes(options)

    @classmethod
    def load(cls, options: Settings, resolve: Callable[[str], Path], device: str) -> "ShapesOracle":
        """It is the same on every device."""
        return cls()


def shapes_oracle() -> VerdictJudge:
    """The oracle of the embedded world."""
    return ShapesOracle()
