"""Process rewards (the PRM of Guo et al. 2025, in the sense of Lightman et al. 2023): judge every step of every path.

keep=path  N whole paths; each is worth the last, the mean or the lowest of its scores (`aggregate`); the best is kept.
keep=step  a beam of one: at every judged step the best of N paths is kept, and branches into N for the next.
The previews at the judged steps are asked `question`, the finished image is asked for its outcome. Previews of early
steps look alike, which is why the paper finds no gain in judging all of them alike; PARM came of that.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from genloop.bounds import Repeats
from genloop.config import Settings
from genloop.search.image import ImageSearch, Path, Steps, ranking
from genloop.search.strategy import Search, check_step


class Prm(Search):
    """Judge every step."""

    class Options(Settings):
        start: Repeats = Field(1, description="the first step that is judged")
        stride: Repeats = Field(1, description="steps between two that are judged")
        question: Literal["outcome", "potential"] = Field("outcome", description="asked about previews")
        keep: Literal["path", "step"] = Field("path", description="what is kept: the best of N paths, or of every step")
        aggregate: Literal["last", "mean", "min"] = Field("mean", description="keep=path: the worth of a path")

    @classmethod
    def questions(cls, options: Any) -> tuple[str, ...]:
        """Finished images are asked for their outcome in any case."""
        return tuple(dict.fromkeys((options.question, "outcome")))

    @classmethod
    def check(cls, num_candidates: int, num_steps: int, options: Any) -> None:
        """There is a step to judge."""
        check_step("start", options.start, num_steps)

    def choose(self, image: ImageSearch) -> Steps[Path]:
        """The search for one image."""
        options = self.options
        judged = range(options.start, self.sampler.num_steps, options.stride)
        if options.keep == "step":
            return (yield from _beam(image, self.num_candidates, judged, options.question))
        paths = image.start(self.num_candidates)
        for step in judged:
            yield from image.walk(paths, step)
            yield from image.ask(options.question, paths)
        yield from image.walk(paths)
        yield from image.ask("outcome", paths)
        worth = [_aggregate([seen.p_yes for seen in path.trace], options.aggregate) for path in paths]
        return paths[ranking(worth)[0]]


def _beam(image: ImageSearch, width: int, judged: Sequence[int], question: str) -> Steps[Path]:
    """Keep the best of every judged step, in `width` continuations."""
    paths = image.start(width)
    for step in judged:
        yield from image.walk(paths, step)
        scores = yield from image.ask(question, paths)
        best = paths[ranking(scores)[0]]
        paths = [best, *image.branch(best, width - 1)] if width > 1 else paths
    yield from image.walk(paths)
    yield from image.ask("outcome", paths)
    return image.best("outcome", paths)


def _aggregate(scores: Sequence[float], how: str) -> float:
    """Scores in the order of their steps, unknown ones (NaN) left out -> the worth of a path; NaN without any."""
    known = [score for score in scores if not math.isnan(score)]
    if not known:
        return math.nan
    if how == "last":
        return known[-1]
    return min(known) if how == "min" else sum(known) / len(known)
