"""Successive halving (Jamieson & Talwalkar 2016) over decoding steps: all paths start, fewer go on at every rung.

At the step of a rung the paths are ranked by `question` about their previews, and the share of the rung goes on. The
outcome of those that come to the end decides. Without rungs: a half at a third, at a half and at two thirds of the way.
"""

import math
from typing import Any, Literal

from pydantic import Field

from genloop.bounds import Repeats, Share
from genloop.config import Settings
from genloop.search.image import ImageSearch, Path, Steps
from genloop.search.parm import climb, finish
from genloop.search.strategy import Search, check_step


class Rung(Settings):
    """Where paths are cut, and how many go on."""

    step: Repeats = Field(description="after so many steps")
    share: Share = Field(0.5, gt=0, description="of the paths go on, rounded up")


class SuccessiveHalving(Search):
    """Cut a share of the paths at every rung."""

    class Options(Settings):
        rungs: tuple[Rung, ...] = Field((), description="list of {step, share}; empty: three halvings")
        question: Literal["potential", "outcome"] = Field("potential", description="asked about previews")

    @classmethod
    def questions(cls, options: Any) -> tuple[str, ...]:
        """Finished images are asked for their outcome in any case."""
        return tuple(dict.fromkeys((options.question, "outcome")))

    @classmethod
    def check(cls, num_candidates: int, num_steps: int, options: Any) -> None:
        """Rungs climb."""
        steps = [rung.step for rung in options.rungs]
        for step in steps:
            check_step("rungs", step, num_steps)
        if steps != sorted(set(steps)):
            raise ValueError(f"search.options.rungs: the steps {steps} do not climb")

    def choose(self, image: ImageSearch) -> Steps[Path]:
        """The search for one image."""
        rungs = self.options.rungs or _thirds(self.sampler.num_steps)
        left, pairs = self.num_candidates, []
        for rung in rungs:
            left = math.ceil(left * rung.share)
            pairs.append((rung.step, left))
        alive = yield from climb(image, image.start(self.num_candidates), pairs, self.options.question)
        return (yield from finish(image, alive))


def _thirds(num_steps: int) -> list[Rung]:
    """Halvings at a third, a half and two thirds of the way; fewer where steps are few."""
    steps = dict.fromkeys(round(num_steps * share) for share in (1 / 3, 1 / 2, 2 / 3))
    return [Rung(step=step) for step in steps if 1 <= step < num_steps]
