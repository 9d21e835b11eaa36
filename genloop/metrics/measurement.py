"""Images -> scores and features by any metrics of the table, unit by unit. No torch until something is loaded."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from genloop.config import Settings
from genloop.data.image_reader import ImageReader
from genloop.data.pictures import Picture, find_images, find_pictures
from genloop.factories import Resolve
from genloop.ledger import Ledger
from genloop.metrics.features import CachedExtractor, extractor_mark
from genloop.metrics.makers import Extractor, FeatureSettings, Scorer, Tools, is_distance, metric_maker
from genloop.metrics.set_distances import Gaussian
from genloop.metrics.statistics import has_statistics, npy_bytes, open_statistics, size_of
from genloop.records import Prompt, Unit
from genloop.runs.generated import units_to_make


class Work(NamedTuple):
    """What measures: every metric of single images; every kind of features, under the first metric that goes by it."""

    scorers: Mapping[str, Scorer]
    extractors: Mapping[str, Extractor]


@dataclass(frozen=True)
class Measurement:
    """What is measured, by what, against what. Items are the images, then those of a reference folder."""

    metrics: Mapping[str, Settings]  # {metric: its options}
    images: Path
    reference: Path | None
    prompts: Path | None
    limit: int | None
    resolve: Resolve

    @cached_property
    def scores(self) -> dict[str, Any]:
        """{metric of single images: options}"""
        return {name: options for name, options in self.metrics.items() if not is_distance(name)}

    @cached_property
    def distances(self) -> dict[str, Any]:
        """{metric of sets of images: options}"""
        return {name: options for name, options in self.metrics.items() if is_distance(name)}

    @cached_property
    def features(self) -> dict[str, FeatureSettings]:
        """{first metric that goes by them: features}, each kind once."""
        found: dict[str, FeatureSettings] = {}
        for name, options in self.distances.items():
            if options.features not in found.values():
                found[name] = options.features
        return found

    def kept_as(self, name: str) -> str:
        """The key in `features` of what this distance goes by."""
        return next(first for first, kind in self.features.items() if kind == self.distances[name].features)

    @cached_property
    def pictures(self) -> list[Picture]:
        """The images, with their prompts."""
        return find_pictures(self.images, self.prompts, limit=self.limit)

    @cached_property
    def others(self) -> list[Picture]:
        """The images of a reference folder; none of a reference that has statistics already."""
        if self.reference is None or has_statistics(self.reference):
            return []
        return find_images(self.reference, limit=self.limit)

    def needs(self, what: str) -> list[str]:
        """The metrics that need weights, prompts, a judge or a reference."""
        return [name for name in self.metrics if what in metric_maker(name).needs]

    def check(self) -> None:
        """Options, weights, folders, prompts and the reference; ValueError or FileNotFoundError in one line."""
        for name, options in self.metrics.items():
            metric_maker(name).check(options, self.resolve)
        if left := units_to_make(self.images):
            raise ValueError(f"{self.images}: the run of generate around them is unfinished, {left} units to make")
        bare = [picture.image for picture in self.pictures if picture.prompt is None]
        if bare and (asking := self.needs("prompt")):
            raise ValueError(f"{self.images / bare[0]}: has no prompt, {', '.join(asking)} need it; give `prompts`")
        for name, options in self.scores.items():
            maker: Any = metric_maker(name)
            maker.check_prompts(options, [picture.prompt for picture in self.pictures if picture.prompt])
        if self.reference is None and (asking := self.needs("reference")):
            raise ValueError(f"reference: {', '.join(asking)} need a folder of images, or statistics, to go to")
        if self.reference is not None and not self.needs("reference"):
            raise ValueError(f"reference: {', '.join(self.metrics)} do not compare with one; leave it out")
        if self.reference is not None and not self.others:
            self._check_statistics(self.reference)

    def _check_statistics(self, reference: Path) -> None:
        for name in self.needs("reference"):
            found = open_statistics(reference, extractor_mark(self.distances[name].features, self.resolve))
            maker: Any = metric_maker(name)
            if isinstance(found, Gaussian) and maker.needs_features:
                raise ValueError(f"reference: {reference} holds mu and sigma alone; {name} needs the features")

    def inputs(self) -> dict[str, Path | str]:
        """Images, reference and weights, whose content decides the numbers; and which metrics there are."""
        found: dict[str, Path | str] = {"images": self.images, "names": " ".join(self.metrics)}
        if self.reference is not None:
            kept = self.reference / "statistics"
            found["reference"] = kept if kept.is_dir() else self.reference
        for name, options in self.metrics.items():
            paths = metric_maker(name).inputs(options, self.resolve)
            found |= {f"metrics.{name}.{key}": path for key, path in paths.items()}
        return found

    def load(self, tools: Tools, feature_cache: Path | None = None) -> Work:
        """Everything that measures; ValueError when its features are of another size than the reference's."""
        scorers: dict[str, Scorer] = {}
        for name, options in self.scores.items():
            maker: Any = metric_maker(name)
            scorers[name] = maker.load(options, tools)
        extractors: dict[str, Extractor] = {}
        for name, features in self.features.items():
            extractors[name] = features.maker.load(features.options, self.resolve, tools.device)
        self._check_sizes(extractors)
        if feature_cache is not None:
            for name, features in self.features.items():
                mark = extractor_mark(features, self.resolve)
                extractors[name] = CachedExtractor(extractors[name], feature_cache, mark)
        return Work(scorers, extractors)

    def _check_sizes(self, extractors: Mapping[str, Extractor]) -> None:
        """Hold what extractors say of a black image against the statistics of a reference."""
        if self.reference is None or self.others:
            return
        for name in self.needs("reference"):
            first = self.kept_as(name)
            theirs = size_of(open_statistics(self.reference, extractor_mark(self.features[first], self.resolve)))
            ours = extractors[first].embed([np.zeros((64, 64, 3), dtype=np.uint8)]).shape[1]
            if ours != theirs:
                raise ValueError(
                    f"reference: {self.reference} is of {theirs} numbers an image, the features of {name} of {ours}"
                )


def measure(what: Measurement, unit: Unit, work: Work, reader: ImageReader, ledger: Ledger) -> list[dict[str, Any]]:
    """The rows of a unit; its features are written to RUN/features. Images of the reference only have features."""
    items = [(picture, what.images, True) for picture in what.pictures]
    items += [(picture, what.reference or Path(), False) for picture in what.others]
    items = items[unit.start : unit.stop]
    taken = reader.take([str((folder / picture.image).absolute()) for picture, folder, _ in items])
    rows = [_row(picture, image, is_ours) for (picture, _, is_ours), image in zip(items, taken)]
    known = {place: image for place, image in enumerate(taken) if isinstance(image, np.ndarray)}
    scored = [place for place in known if items[place][2]]
    for name, scorer in work.scorers.items():
        prompts = [items[place][0].prompt or Prompt(0, "") for place in scored]
        values = scorer.scores(prompts, [known[place] for place in scored]) if scored else []
        for place, value in zip(scored, values, strict=True):
            rows[place]["scores"][name] = value
    for name, extractor in work.extractors.items():
        features = extractor.embed(list(known.values())) if known else np.empty((0, 0), dtype=np.float32)
        filled = np.full((len(items), features.shape[1]), np.nan, dtype=np.float32)
        filled[list(known)] = features
        ledger.write(feature_file(ledger.run, name, unit), npy_bytes(filled))
    return rows


def feature_file(out: Path, name: str, unit: Unit) -> Path:
    """Features (items, D) float32 of a unit: NaN where an image could not be read, (items, 0) where none could."""
    return out / "features" / file_name(name) / f"{unit.name}.npy"


def file_name(metric: str) -> str:
    """Of a metric that may be "module:class"."""
    return metric.replace(":", "-")


def _row(picture: Picture, image: Any, is_ours: bool) -> dict[str, Any]:
    problem = str(image) if isinstance(image, ValueError) else ""
    if not is_ours:
        return {"reference": picture.image, "problem": problem}
    prompt = picture.prompt
    return {
        "prompt_index": prompt.index if prompt else None,
        "sample": picture.number,
        "prompt": prompt.text if prompt else None,
        "tag": prompt.tag if prompt else None,
        "image": picture.image,
        "problem": problem,
        "scores": {},
    }
