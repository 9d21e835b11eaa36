"""PARM++ (Guo et al. 2025): reflect on the chosen image, and correct it. Nothing of it was released; this is ours.

Another strategy makes the start. Then, up to `rounds` times: does the image show its prompt (P(yes) >= `accept`)? If
not, a judge that gives reasons is asked for one, which is recorded. A part of the image is masked again and drawn anew
in a few steps, the rest stays; the new image is kept only when its P(yes) is higher, so that no round ends below its
start. Every round starts from the best so far, with other noise.
    region=confidence  the tokens that the generator itself finds least likely beside the others
    region=occlusion   the tokens of the blocks without which the judge likes the image best
    region=random      a control
correction=layout draws the whole image anew instead, behind the criticised one and the reason in words: for a generator
that was tuned on `genloop.models.showo.prompting`'s correction layout, as the paper tunes its own.
"""

import math
from typing import Annotated, Any, Literal

from pydantic import Field

from genloop.bounds import Repeats, Share, Width
from genloop.config import Settings, part_name, part_options
from genloop.search.image import ImageSearch, Path, Steps
from genloop.search.regions import at_random, least_confident, occluded
from genloop.search.settings import starter_class
from genloop.search.strategy import Continued


def _starter(name: str) -> Any:
    """The strategy that makes the start."""
    return starter_class(name, "parm_plus_plus")


class ParmPlusPlus(Continued):
    """Any strategy, and then rounds of reflection and correction."""

    class Options(Settings):
        start: Annotated[str, part_name(_starter)] = Field(
            "parm", description="the strategy that makes the start, with n candidates"
        )
        start_options: Annotated[Any, part_options("start", _starter)] = Field(
            {}, validate_default=True, description="keys of that strategy"
        )
        accept: Share = Field(0.5, description="P(yes) from which on an image is good enough")
        rounds: Repeats = Field(6, description="corrections at most")
        correction: Literal["remask", "layout"] = Field(
            "remask", description="draw a region anew, or, with a generator tuned for it, all, behind image and reason"
        )
        region: Literal["confidence", "occlusion", "random"] = Field("confidence", description="what is drawn again")
        fraction: Share = Field(0.3, gt=0, description="of the tokens that are drawn again")
        steps: Repeats = Field(4, description="decoding steps of a correction")
        blocks: Width = Field(3, description="region=occlusion: blocks along a side")

    @classmethod
    def questions(cls, options: Any) -> tuple[str, ...]:
        """Those of the start, and the outcome; what is wrong, where the generator wants to hear it."""
        start = cls.questions_of_start(options)
        own = ("outcome", "reason") if options.correction == "layout" else ("outcome",)
        return tuple(dict.fromkeys((*start, *own)))

    def choose(self, image: ImageSearch) -> Steps[Path]:
        """The search for one image."""
        best = yield from self.start.choose(image)
        if "outcome" not in best.p_yes:
            yield from image.ask("outcome", [best])
        explained: Path | None = None
        for _ in range(self.options.rounds):
            if not best.p_yes["outcome"] < self.options.accept:  # good enough, or unknown
                break
            if image.explains and best is not explained:
                yield from image.explain([best])
                explained = best
            again = yield from self._correct(image, best)
            (p_yes,) = yield from image.ask("outcome", [again])
            if p_yes > best.p_yes["outcome"]:
                best = again
        return best

    def _correct(self, image: ImageSearch, path: Path) -> Steps[Path]:
        """A path that goes on from `path` and draws a part of it, or all, again."""
        options = self.options
        (again,) = image.branch(path)
        if options.correction == "layout":
            image.correct(again, path.reason)
            yield from image.walk([again])
            return again
        count = max(1, round(options.fraction * math.prod(self.sampler.grid)))
        if options.region == "confidence":
            drop = yield from least_confident(image, again, count)
        elif options.region == "occlusion":
            drop = yield from occluded(image, path, count, options.blocks)
        else:
            drop = at_random(image, again, count)
        image.remask(again, drop, options.steps)
        yield from image.walk([again])
        return again
