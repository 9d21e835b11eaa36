"""Distances between two sets of images, by their features: makers of FID, KID and CMMD."""

from typing import Any, ClassVar

from pydantic import Field

from genloop.bounds import Count, Factor
from genloop.config import Settings
from genloop.factories import Resolve
from genloop.metrics.makers import DistanceMaker, FeatureSettings, Line
from genloop.metrics.set_distances import MIN_CLUSTERS, Distance, Gaussian, cmmd, fid, grouped_moments, kid
from genloop.metrics.statistics import Block, Features


class DistanceOptions(Settings):
    """Keys of every distance."""

    features: FeatureSettings = Field(description="what turns images into vectors")


class _Distance(DistanceMaker):
    """What the makers share. `needs_features`: a reference of mere moments is not enough."""

    Options: ClassVar[type[Settings]] = DistanceOptions
    needs = frozenset({"reference"})
    needs_features: ClassVar[bool] = True

    @classmethod
    def check(cls, options: Any, resolve: Resolve) -> None:
        options.features.check(resolve)

    @classmethod
    def inputs(cls, options: Any, resolve: Resolve) -> dict[str, Any]:
        return options.features.inputs(resolve, "features")


class Fid(_Distance):
    """The Frechet distance. Published with an Inception-v3's features; with others it is another number."""

    needs_features = False

    @classmethod
    def conclude(cls, options: Any, name: str, images: Features, reference: Any, seed: int) -> list[Line]:
        """As everybody reports it, and without its bias."""
        ours = grouped_moments(images.blocks())
        theirs = reference if isinstance(reference, Gaussian) else grouped_moments(reference.blocks())
        count = "moments" if isinstance(theirs, Gaussian) else f"{theirs.count} images"
        facts = [f"against {count}"]
        if ours.count <= len(ours.groups[0].mean):
            facts.append(f"fewer images than the {len(ours.groups[0].mean)} features: compare at equal n only")
        if isinstance(theirs, Gaussian):
            facts.append("the bias that the reference brings is not known")
        return _lines(name, fid(ours, theirs), ours.count, facts)


class KidOptions(DistanceOptions):
    """Keys of `metrics.kid`."""

    subsets: Count = Field(100, ge=2, description="subsets that are drawn")
    subset_size: Count = Field(1000, ge=2, description="images in one; at most half of the smaller set")


class Kid(_Distance):
    """The unbiased kernel distance, times 1 as published; others report it times 1000."""

    Options = KidOptions

    @classmethod
    def conclude(cls, options: KidOptions, name: str, images: Features, reference: Any, seed: int) -> list[Line]:
        ours: Block = images.whole
        theirs: Block = reference.whole
        num, against = len(ours[0]), f"against {len(theirs[0])} images"
        if min(len(set(clusters.tolist())) for _, clusters in (ours, theirs)) < MIN_CLUSTERS:
            nothing = float("nan")
            return [Line(name, nothing, nothing, nothing, num, f"{against}; fewer than {MIN_CLUSTERS} prompts")]
        found = kid(*ours, *theirs, seed, num_subsets=options.subsets, subset_size=options.subset_size)
        size = min(options.subset_size, num // 2, len(theirs[0]) // 2)
        note = f"{against}; {options.subsets} subsets of {size}"
        return [Line(name, found.value, found.low, found.high, num, note)]


class CmmdOptions(DistanceOptions):
    """Keys of `metrics.cmmd`; the defaults are the published ones."""

    sigma: Factor = Field(10.0, description="width of the kernel")
    scale: Factor = Field(1000.0, description="of the squared distance")


class Cmmd(_Distance):
    """The kernel distance of CLIP's vectors."""

    Options = CmmdOptions

    @classmethod
    def conclude(cls, options: CmmdOptions, name: str, images: Features, reference: Any, seed: int) -> list[Line]:
        """As published, and without its bias."""
        found = cmmd(*images.whole, *reference.whole, sigma=options.sigma, scale=options.scale)
        return _lines(name, found, len(images.whole[0]), [f"against {len(reference.whole[0])} images"])


class Statistics(_Distance):
    """No distance: only keeps the features, for later runs to be compared with (`reference`)."""

    needs = frozenset()

    @classmethod
    def conclude(cls, options: Any, name: str, images: Features, reference: Any, seed: int) -> list[Line]:
        nothing = float("nan")
        return [Line(name, nothing, nothing, nothing, len(images.whole[0]), "features are kept in RUN/statistics")]


def _lines(name: str, found: Distance, num: int, facts: list[str]) -> list[Line]:
    """The distance, and the same without its bias where that is known."""
    first = Line(name, found.value, found.low, found.high, num, "; ".join(facts))
    if found.bias is None:
        return [first._replace(note="; ".join([*facts, "too few prompts for an interval"]))]
    value, low, high = (number - found.bias for number in (found.value, found.low, found.high))
    note = "by leaving out a tenth of the images at a time"
    return [first, Line(f"{name} without bias", value, low, high, num, note)]
