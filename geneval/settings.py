"""Who finds objects, who names their colours: config keys of jobs that judge images by GenEval's rules. No torch.

`DETECTORS` and `COLOR_CLASSIFIERS` name makers. A maker is a class that knows, without loading anything, what its part
needs. A bare name stands for one without options: `detector=shapes` is `detector.kind=shapes`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Protocol

from pydantic import Field

from geneval.detectors.tables import COLOR_CLASSIFIERS, DETECTORS
from geneval.verdict import VerdictOptions
from genloop.config import Settings, part_name, part_options
from genloop.factories import Maker, PartSettings, Resolve
from genloop.protocols import ColorClassifier, Detector
from genloop.registry import lookup


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
    def load(cls, options: Any, resolve: Resolve, device: str) -> Any:
        """The Detector or ColorClassifier itself, on `device`."""


def detector_maker(kind: str) -> type[PartMaker]:
    """The maker behind a name, or behind "module:class"; ValueError with a suggestion when there is none."""
    return lookup(DETECTORS, kind, "detector")


def color_maker(kind: str) -> type[PartMaker]:
    """The maker behind a name, or behind "module:class"; ValueError with a suggestion when there is none."""
    return lookup(COLOR_CLASSIFIERS, kind, "colour classifier")


class DetectorSettings(PartSettings):
    """Who finds the objects."""

    kind: Annotated[str, part_name(detector_maker)] = Field(description=f"{', '.join(DETECTORS)}, module:class")
    options: Annotated[Any, part_options("kind", detector_maker)] = Field(
        {}, validate_default=True, description="keys of that kind of detector"
    )


class ColorSettings(PartSettings):
    """Who names their colours."""

    kind: Annotated[str, part_name(color_maker)] = Field(description=f"{', '.join(COLOR_CLASSIFIERS)}, module:class")
    options: Annotated[Any, part_options("kind", color_maker)] = Field(
        {}, validate_default=True, description="keys of that kind of colour classifier"
    )


class EvaluatorKeys(Settings):
    """What decides whether an image shows its prompt."""

    detector: DetectorSettings = Field(description=f"who finds the objects: {', '.join(DETECTORS)}")
    colors: ColorSettings = Field(description=f"who names their colours: {', '.join(COLOR_CLASSIFIERS)}")
    options: VerdictOptions = VerdictOptions()


class Evaluator(NamedTuple):
    """What finds objects, what names their colours, and the rules."""

    detector: Detector
    colors: ColorClassifier
    options: VerdictOptions


def check_evaluator(keys: EvaluatorKeys, resolve: Resolve) -> Sequence[str]:
    """Refuse bad options of both parts -> the classes that the detector knows. Loads nothing."""
    for maker, options in _parts(keys).values():
        maker.check(options, resolve)
    return detector_maker(keys.detector.kind).classes(keys.detector.options)


def evaluator_inputs(keys: EvaluatorKeys, resolve: Resolve) -> dict[str, Path]:
    """{dotted key: file or folder} whose content enters the fingerprint."""
    return {
        f"{group}.options.{key}": path
        for group, (maker, options) in _parts(keys).items()
        for key, path in maker.inputs(options, resolve).items()
    }


def evaluator_facts(keys: EvaluatorKeys, resolve: Resolve) -> dict[str, Mapping[str, Any]]:
    """{"detector", "colors": what their inputs decide}; reads small files only."""
    parts = _parts(keys).items()
    return {group: maker.facts(options, resolve) for group, (maker, options) in parts if hasattr(maker, "facts")}


def build_evaluator(keys: EvaluatorKeys, resolve: Resolve, device: str = "cpu") -> Evaluator:
    """Both parts on `device`."""
    detector, colors = (maker.load(options, resolve, device) for maker, options in _parts(keys).values())
    return Evaluator(detector, colors, keys.options)


def _parts(keys: EvaluatorKeys) -> dict[str, tuple[type[PartMaker], Any]]:
    return {
        "detector": (detector_maker(keys.detector.kind), keys.detector.options),
        "colors": (color_maker(keys.colors.kind), keys.colors.options),
    }
