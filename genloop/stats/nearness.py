"""How many decisions of an evaluation lie so close to a threshold that rounding, or another GPU, could change them."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from genloop.stats.intervals import Interval, clustered_wilson
from genloop.stats.markdown import percent

WITHIN = 0.005  # of a score


@dataclass(frozen=True, slots=True)
class Nearness:
    """Images whose nearest score is within WITHIN of its threshold, and their share of all (Wilson's interval)."""

    images: int
    share: Interval

    def to_json(self) -> dict[str, Any]:
        """{"images", "share"}"""
        return {"images": self.images, "share": self.share._asdict()}

    def __str__(self) -> str:
        """3 images, 0.8 % (0.3 to 2.2)"""
        return f"{self.images} image{'s' * (self.images != 1)}, {percent(self.share)}"


def is_near(distance: float | None) -> bool:
    """Whether a score's distance to its threshold is small; None: no score is anywhere near."""
    return distance is not None and distance <= WITHIN


def nearness(distances: Sequence[float | None], prompts: Sequence[Hashable]) -> Nearness:
    """From an image's distance of its nearest score, None where none is near, each with its prompt."""
    near = [float(is_near(distance)) for distance in distances]
    return Nearness(int(sum(near)), clustered_wilson(near, prompts))
