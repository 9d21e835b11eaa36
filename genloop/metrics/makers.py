"""The tables of metrics of generated images, and of features that distances go by: name -> "module:class" of a maker.

A maker is a class that knows, without loading anything, what its metric needs. `ScoreMaker` gives every image a score,
`DistanceMaker` compares a set of images with another one. A name with a colon is a maker of your own. No torch.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NamedTuple, Protocol

import numpy as np
from pydantic import Field, PlainValidator
from pydantic_core import PydanticCustomError

from genloop.config import Settings, parse_options, refusal
from genloop.factories import Maker, PartSettings, Resolve
from genloop.protocols import Judge
from genloop.records import Prompt
from genloop.registry import lookup

if TYPE_CHECKING:
    from genloop.metrics.set_distances import Gaussian
    from genloop.metrics.statistics import Features

METRICS = {
    "clip_score": "genloop.metrics.clip_score:ClipScore",
    "vqa_score": "genloop.metrics.scores:VqaScore",
    "geneval2": "geneval.geneval2:SoftTifa",
    "fid": "genloop.metrics.distances:Fid",
    "kid": "genloop.metrics.distances:Kid",
    "cmmd": "genloop.metrics.distances:Cmmd",
    "statistics": "genloop.metrics.distances:Statistics",
    "pairs": "genloop.metrics.paired.maker:ImagePairs",
}
FEATURES = {
    "pixels": "genloop.metrics.features:PixelFeatures",
    "clip": "genloop.metrics.features:ClipFeatures",
}
NEEDS = ("weights", "prompt", "judge", "reference", "pairs")
ANY_QUESTION = "any question"  # asked of a judge that is an Asker


class Line(NamedTuple):
    """One number of a metric with its 95 % interval (NaN: unknown), of n images or whatever `note` says."""

    name: str
    value: float
    low: float
    high: float
    n: int
    note: str = ""


class Tools(NamedTuple):
    """What a metric may use when it is loaded; the judge is loaded when it is asked for."""

    resolve: Resolve
    device: str
    judge: Callable[[], Judge]


class MetricMaker(Maker, Protocol):
    """What makers of metrics have in common."""

    needs: ClassVar[frozenset[str]] = frozenset()  # of NEEDS


class Scorer(Protocol):
    """Scores images one by one."""

    def scores(self, prompts: Sequence[Prompt], images: Sequence[np.ndarray]) -> list[Any]:
        """One prompt per image (H, W, 3) uint8 -> a value each that JSON can hold; None where there is none.

        No value depends on the images beside it.
        """


class PairScorer(Protocol):
    """Compares images with their partners; what a maker loads that needs "pairs"."""

    def compare(self, candidates: Sequence[np.ndarray], references: Sequence[np.ndarray]) -> list[dict[str, Any]]:
        """Images (H, W, 3) uint8, pair by pair -> {name: a value that JSON can hold} of each."""


class ScoreMaker(MetricMaker, Protocol):
    """Makes a metric of single images, which is then summed up."""

    @classmethod
    def questions(cls, options: Any) -> tuple[str, ...]:
        """What the judge is asked."""
        return ()

    @classmethod
    def check_prompts(cls, options: Any, prompts: Sequence[Prompt]) -> None:
        """Refuse prompts that it cannot go by."""

    @classmethod
    def load(cls, options: Any, tools: Tools) -> "Scorer | PairScorer":
        """A PairScorer where `needs` has "pairs"."""
        ...

    @classmethod
    def conclude(cls, options: Any, name: str, rows: Sequence[Mapping[str, Any]], seed: int) -> list[Line]:
        """`rows` are those of the job, with {"scores": {name: value}}."""
        ...


class DistanceMaker(MetricMaker, Protocol):
    """Makes a metric of sets of images. Its options have `features: FeatureSettings`."""

    @classmethod
    def conclude(
        cls, options: Any, name: str, images: "Features", reference: "Features | Gaussian | None", seed: int
    ) -> list[Line]: ...


class Extractor(Protocol):
    """Turns images into vectors."""

    def embed(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Images (H, W, 3) uint8, sizes may differ -> (N, D) float32; no row depends on the images beside it."""


class FeatureMaker(Maker, Protocol):
    """Makes extractors."""

    @classmethod
    def load(cls, options: Any, resolve: Resolve, device: str) -> Extractor: ...


def metric_maker(name: str) -> type[ScoreMaker] | type[DistanceMaker]:
    """The maker behind a name, or behind "module:class"; ValueError with a suggestion when there is none."""
    return lookup(METRICS, name, "metric")


def is_distance(name: str) -> bool:
    """Whether a metric compares sets of images."""
    return "features" in metric_maker(name).Options.model_fields


class FeatureSettings(PartSettings):
    """What turns images into vectors. A bare name stands for a kind without options."""

    table: ClassVar = FEATURES
    part: ClassVar = "kind of features"

    kind: str = Field("clip", description=f"{', '.join(FEATURES)}, module:class")


def _parse_metrics(given: Any) -> dict[str, Settings]:
    """{name: its options}; nothing at all stands for options that are left as they are."""
    if not isinstance(given, dict) or not given:
        raise refusal(f": name at least one metric ({', '.join(METRICS)}), as in metrics.fid.features=pixels")
    found = {}
    for name, options in given.items():
        try:
            found[name] = parse_options(metric_maker(name).Options, {} if options is None else options)
        except PydanticCustomError as error:
            raise refusal(f".{name}{error.message()}") from None
        except ValueError as error:
            raise refusal(f": {error}") from None
    return found


Metrics = Annotated[dict[str, Any], PlainValidator(_parse_metrics)]
