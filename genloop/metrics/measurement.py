"""Images -> scores and features by any metrics of the table, unit by unit. No torch until something is loaded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from genloop.config import Settings
from genloop.data.image_reader import ImageReader
from genloop.data.pictures import Picture, find_images, find_pictures
from genloop.data.shards import npy_bytes
from genloop.factories import Resolve
from genloop.ledger import Ledger
from genloop.metrics.features import CachedExtractor, extractor_mark
from genloop.metrics.makers import Extractor, FeatureSettings, PairScorer, Scorer, Tools, is_distance, metric_maker
from genloop.metrics.paired.partners import OURS, REFERENCE, SHUFFLED, Side, check_sizes, partners, shuffled
from genloop.metrics.set_distances import Gaussian
from genloop.metrics.statistics import has_statistics, open_statistics, size_of
from genloop.records import Prompt, Unit
from genloop.runs.generated import units_to_make


class Work(NamedTuple):
    """What measures: every metric of single images; every kind of features, under the first metric that goes by it;
    every metric of pairs.
    """

    scorers: Mapping[str, Scorer]
    extractors: Mapping[str, Extractor]
    comparers: Mapping[str, PairScorer]


@dataclass(frozen=True)
class Measurement:
    """What is measured, by what, against what. Items are the images, then those of a reference folder."""

    metrics: Mapping[str, Settings]  # {metric: its options}
    images: Path
    reference: Path | None
    prompts: Path | None
    limit: int | None
    resolve: Resolve
    others_in_pairs: Mapping[str, Path] = field(default_factory=dict)  # {config key: what else goes to the reference}
    seed: int = 0

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
        if self.reference is None or not self._compared_sets() or has_statistics(self.reference):
            return []
        return find_images(self.reference, limit=self.limit)

    @cached_property
    def sides(self) -> dict[str, Side]:
        """What paired metrics compare: the images, other runs, shuffled references; the reference itself last."""
        if self.reference is None or not self.needs("pairs"):
            return {}
        theirs = partners(self.pictures, self.reference, self.prompts, "reference")
        found = {OURS: Side(self.images, self.pictures)}
        for key, folder in self.others_in_pairs.items():
            found[key] = Side(folder, partners(self.pictures, folder, self.prompts, key))
        if (places := shuffled(self.pictures, self.seed)) is not None:
            found[SHUFFLED] = Side(self.reference, [theirs[place] for place in places])
        return found | {REFERENCE: Side(self.reference, theirs)}

    def needs(self, what: str) -> list[str]:
        """The metrics that need weights, prompts, a judge, a reference or pairs with it."""
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
        if self.others_in_pairs and not self.needs("pairs"):
            raise ValueError(f"{next(iter(self.others_in_pairs))}: only the metric pairs uses it; leave it out")
        self._check_pairs()

    def _compared_sets(self) -> list[str]:
        """The metrics of sets of images that need a reference."""
        return [name for name in self.needs("reference") if name in self.distances]

    def _check_pairs(self) -> None:
        for key, found in (("images", self.pictures), ("reference", self.others or self.pictures)):
            if len(found) < 2 and (asking := [*self.needs("pairs"), *self.distances]):
                raise ValueError(f"{key}: {', '.join(asking)} need at least 2 images, found {len(found)}")
        for name in self.needs("pairs"):
            options: Any = self.metrics[name]
            check_sizes(self.sides, options)

    def _check_statistics(self, reference: Path) -> None:
        for name in self._compared_sets():
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
        found |= self.others_in_pairs
        for name, options in self.metrics.items():
            paths = metric_maker(name).inputs(options, self.resolve)
            found |= {f"metrics.{name}.{key}": path for key, path in paths.items()}
        return found

    def load(self, tools: Tools, feature_cache: Path | None = None) -> Work:
        """Everything that measures; ValueError when its features are of another size than the reference's."""
        scorers: dict[str, Scorer] = {}
        comparers: dict[str, PairScorer] = {}
        for name, options in self.scores.items():
            maker: Any = metric_maker(name)
            (comparers if "pairs" in maker.needs else scorers)[name] = maker.load(options, tools)
        extractors: dict[str, Extractor] = {}
        for name, features in self.features.items():
            extractors[name] = features.maker.load(features.options, self.resolve, tools.device)
        self._check_sizes(extractors)
        if feature_cache is not None:
            for name, features in self.features.items():
                mark = extractor_mark(features, self.resolve)
                extractors[name] = CachedExtractor(extractors[name], feature_cache, mark)
        return Work(scorers, extractors, comparers)

    def _check_sizes(self, extractors: Mapping[str, Extractor]) -> None:
        """Hold what extractors say of a black image against the statistics of a reference."""
        if self.reference is None or self.others:
            return
        for name in self._compared_sets():
            first = self.kept_as(name)
            theirs = size_of(open_statistics(self.reference, extractor_mark(self.features[first], self.resolve)))
            ours = extractors[first].embed([np.zeros((64, 64, 3), dtype=np.uint8)]).shape[1]
            if ours != theirs:
                raise ValueError(
                    f"reference: {self.reference} is of {theirs} numbers an image, the features of {name} of {ours}"
                )


def measure(what: Measurement, unit: Unit, work: Work, reader: ImageReader, ledger: Ledger) -> list[dict[str, Any]]:
    """The rows of a unit; its features are written to RUN/features. Images of the reference only have features."""
    num = len(what.pictures)
    others = what.others[max(0, unit.start - num) : max(0, unit.stop - num)]
    items = [(picture, what.images, True) for picture in what.pictures[unit.start : unit.stop]]
    items += [(picture, what.reference or Path(), False) for picture in others]
    taken = reader.take([str((folder / picture.image).absolute()) for picture, folder, _ in items])
    rows = [_row(picture, image, is_ours) for (picture, _, is_ours), image in zip(items, taken)]
    num_ours = sum(is_ours for *_, is_ours in items)
    known = {place: image for place, image in enumerate(taken) if isinstance(image, np.ndarray)}
    if work.comparers:
        _compare(what, unit.start, rows[:num_ours], known, work, reader)
    scored = [place for place in known if items[place][2]]
    for name, scorer in work.scorers.items():
        ledger.world.step()
        prompts = [items[place][0].prompt or Prompt(0, "") for place in scored]
        values = scorer.scores(prompts, [known[place] for place in scored]) if scored else []
        for place, value in zip(scored, values, strict=True):
            rows[place]["scores"][name] = value
    for name, extractor in work.extractors.items():
        ledger.world.step()
        features = extractor.embed(list(known.values())) if known else np.empty((0, 0), dtype=np.float32)
        filled = np.full((len(items), features.shape[1]), np.nan, dtype=np.float32)
        filled[list(known)] = features
        ledger.write(feature_file(ledger.run, name, unit), npy_bytes(filled))
    return rows


def _compare(
    what: Measurement,
    start: int,
    rows: Sequence[dict[str, Any]],
    known: Mapping[int, np.ndarray],
    work: Work,
    reader: ImageReader,
) -> None:
    """Add the scores of pairs to the rows of the images that begin at `start`, of which `known` could be read.

    Where another image of the pair does not decode, the row keeps its name and the reason.
    """
    shown: dict[str, dict[int, np.ndarray]] = {}  # {side: {place: image}}
    for key, side in what.sides.items():
        if key == OURS:
            shown[key] = {place: known[place] for place in range(len(rows)) if place in known}
            continue
        pictures = side.pictures[start : start + len(rows)]
        taken = reader.take([str((side.folder / picture.image).absolute()) for picture in pictures])
        for place, image in enumerate(taken):
            if isinstance(image, np.ndarray):
                shown.setdefault(key, {})[place] = image
            elif key != SHUFFLED and not rows[place]["problem"]:
                rows[place]["problem"] = f"{key} {pictures[place].image}: {image}"
    whole = [place for place, row in enumerate(rows) if not row["problem"]]
    for name, comparer in work.comparers.items():
        for key in what.sides:
            places = [place for place in whole if place in shown.get(key, ())]
            if key == REFERENCE or not places:
                continue
            sides = [[shown[one][place] for place in places] for one in (key, REFERENCE)]
            for place, values in zip(places, comparer.compare(*sides), strict=True):
                rows[place]["scores"].setdefault(name, {})[key] = values


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
