"""Adaptive search: draw candidates in rounds, stop when the judge is sure, spend the rest where it is not.

A round: `group` paths walk to step `at`, the one with the highest potential is finished (`keep` of them), its outcome
is asked. It is accepted when the calibrated P(yes) is at least 1 - `error`; else the next round, up to N paths in all,
after which the best finished one is taken. group=1 is sequential best-of-N: no potential is asked.

The error. Where the judge is calibrated, an image with P(yes) = p is wrong with probability 1 - p. Only images with
p >= 1 - error are accepted, so the share of wrong ones among them, a mean of such numbers, is at most `error`, however
many rounds came before. Two conditions: the judge is calibrated on the finished images of this very search, those that
its own previews picked; and no worse on prompts whose earlier rounds failed. Images that are taken because the budget
ended carry no such promise. `slope` and `offset` calibrate (Platt 1999): P = sigmoid(slope * logit(P(yes)) + offset),
fitted on other prompts.
"""

import math
from typing import Any

from pydantic import Field

from genloop.bounds import Count, Factor, Offset, Share
from genloop.config import Settings
from genloop.search.image import ImageSearch, Path, Steps
from genloop.search.parm import Rungs, climb, rungs
from genloop.search.strategy import Search


class Adaptive(Search):
    """Rounds until the judge is sure."""

    class Options(Settings):
        group: Count = Field(4, description="paths of a round")
        at: Rungs = Field(None, description="step at which paths of a round are ranked, or list; none: a third of all")
        keep: Rungs = Field((1,), description="how many are finished, or list")
        error: Share = Field(0.3, lt=1, description="share of wrong images among the accepted, at most")
        slope: Factor = Field(1.0, description="calibration: factor of the judge's logit")
        offset: Offset = Field(0.0, description="calibration: added to it")

    @classmethod
    def questions(cls, options: Any) -> tuple[str, ...]:
        """A round of one needs no ranking."""
        return ("outcome",) if options.group == 1 else ("potential", "outcome")

    @classmethod
    def check(cls, num_candidates: int, num_steps: int, options: Any) -> None:
        """The rungs of a round."""
        if options.group > 1:
            rungs(options.group, num_steps, options.at, options.keep)

    def choose(self, image: ImageSearch) -> Steps[Path]:
        """The search for one image."""
        options, finished = self.options, []
        while len(image.paths) < self.num_candidates:
            alive = image.start(min(options.group, self.num_candidates - len(image.paths)))
            if len(alive) > 1:
                pairs = rungs(options.group, self.sampler.num_steps, options.at, options.keep)
                alive = yield from climb(image, alive, pairs)
            yield from image.walk(alive)
            yield from image.ask("outcome", alive)
            finished += alive
            best = image.best("outcome", finished)
            if calibrated(best.p_yes["outcome"], options.slope, options.offset) >= 1 - options.error:
                return best
        return image.best("outcome", finished)


def calibrated(p_yes: float, slope: float, offset: float) -> float:
    """Platt's sigmoid of a probability's logit; the probability itself for slope 1 and offset 0; NaN stays."""
    if math.isnan(p_yes) or (slope, offset) == (1.0, 0.0):
        return p_yes
    inside = min(max(p_yes, 1e-9), 1 - 1e-9)
    return 1 / (1 + math.exp(-(slope * math.log(inside / (1 - inside)) + offset)))
