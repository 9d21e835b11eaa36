"""Who finds objects, who names their colours: config keys of jobs that judge images by GenEval's rules. No torch.

`DETECTORS` and `COLOR_CLASSIFIERS` name makers. A maker is a class that knows, without loading anything, what its part
needs. A bare name stands for one without options: `detector=shapes` is `detector.kind=shapes`.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

from pydantic import Field

from geneval.detectors.tables import COLOR_CLASSIFIERS, DETECTORS
from geneval.verdict import VerdictOptions
from genloop.config import Settings
from genloop.factories import Maker, PartSettings, Resolve
from genloop.protocols import ColorClassifier, Detector
from genloop.records import Prompt


class PartMaker(Maker, Protocol):
    """What stands behind a name in either table."""

    @classmethod
    def facts(cls, options: Any, resolve: Resolve) -> Mapping[str, Any]:
        """What the inputs decide, for the regime card, as JSON: the value of an option that is null, under its name,
        and whatever else a reader should know of them. A maker may lack this method.
        """
        return {}

    @classmethod
    def classes(cls, options: Any) -> Sequence[str]:
        """The object classes that a detector knows."""
        raise NotImplementedError

    @classmethod
    def check_size(cls, options: Any, width: int, height: int) -> None:
        """Refuse, with a ValueError, images of a size that the detector was not made for; it may lack this method."""

    @classmethod
    def load(cls, options: Any, resolve: Resolve, device: str) -> Any:
        """The Detector or ColorClassifier itself, on `device`."""


class DetectorSettings(PartSettings):
    """Who finds the objects."""

    table: ClassVar = DETECTORS
    part: ClassVar = "detector"

    kind: str = Field(description=f"{', '.join(DETECTORS)}, module:class")


class ColorSettings(PartSettings):
    """Who names their colours."""

    table: ClassVar = COLOR_CLASSIFIERS
    part: ClassVar = "colour classifier"

    kind: str = Field(description=f"{', '.join(COLOR_CLASSIFIERS)}, module:class")


class EvaluatorKeys(Settings):
    """What decides whether an image shows its prompt."""

    detector: DetectorSettings = Field(description=f"who finds the objects: {', '.join(DETECTORS)}")
    colors: ColorSettings = Field(description=f"who names their colours: {', '.join(COLOR_CLASSIFIERS)}")
    options: VerdictOptions = VerdictOptions()


class ExactEvaluatorKeys(EvaluatorKeys):
    """The same for jobs that make data to learn from: by default the exact detector of the embedded world."""

    detector: DetectorSettings = DetectorSettings(kind="shapes")
    colors: ColorSettings = ColorSettings(kind="shapes")


class Evaluator(NamedTuple):
    """What finds objects, what names their colours, and the rules."""

    detector: Detector
    colors: ColorClassifier
    options: VerdictOptions


def check_evaluator(keys: EvaluatorKeys, resolve: Resolve) -> Sequence[str]:
    """Refuse bad options of both parts -> the classes that the detector knows. Loads nothing."""
    for part in (keys.detector, keys.colors):
        part.check(resolve)
    return keys.detector.maker.classes(keys.detector.options)


def check_prompts_of(run: Path, prompts: Iterable[Prompt], keys: EvaluatorKeys, known: Collection[str]) -> None:
    """Refuse prompts of a run that lack GenEval metadata, or name classes that the detector does not know."""
    for prompt in prompts:
        if prompt.tag is None:
            raise ValueError(f"{run}: prompt {prompt.index} {prompt.text!r} has no GenEval metadata")
        if strange := [c.class_name for c in prompt.include if c.class_name not in known]:
            raise ValueError(f"detector: {keys.detector.kind!r} does not know {strange[0]!r} of prompt {prompt.index}")


def evaluator_inputs(keys: EvaluatorKeys, resolve: Resolve) -> dict[str, Path]:
    """{dotted key: file or folder} whose content enters the fingerprint."""
    return keys.detector.inputs(resolve, "detector") | keys.colors.inputs(resolve, "colors")


def evaluator_facts(keys: EvaluatorKeys, resolve: Resolve) -> dict[str, Mapping[str, Any]]:
    """{"detector", "colors": what their inputs decide}; reads small files only."""
    parts = {"detector": keys.detector, "colors": keys.colors}
    return {
        group: part.maker.facts(part.options, resolve) for group, part in parts.items() if hasattr(part.maker, "facts")
    }


def build_evaluator(keys: EvaluatorKeys, resolve: Resolve, device: str = "cpu") -> Evaluator:
    parts = (keys.detector, keys.colors)
    detector, colors = (part.maker.load(part.options, resolve, device) for part in parts)
    return Evaluator(detector, colors, keys.options)
