"""Guided generation: a critic looks at the image, the prompt is refined, the image is noised again and drawn anew.

Another strategy makes the start. Then up to `rounds` times: the critic measures the best image so far, says what is
wrong with it and refines the prompt; the image is noised again to a strength that decays, s_k = strength * decay^k, and
drawn for the refined prompt with a guidance that rises, g_k = g * (1 + guidance_rise * k). The new image is kept only
when the judge scores it higher, so that no round ends below its start. After a drawing that was taken back the next is
for the instruction itself, then for the refined prompt again: a generator need not know the words of a refined one. A
critic that finds nothing to change, or whose answer cannot be read, ends the search: what is there is kept. `strength`
1 draws the whole image anew; without guidance in the generator `guidance_rise` does nothing.
    region=any         tokens by chance, latents everywhere
    region=confidence  the cells that the generator finds least likely beside the others, as many as the strength says
"""

import math
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Field

from genloop.bounds import Repeats, Share, Weight
from genloop.config import Settings, part_name, part_options
from genloop.records import Prompt
from genloop.search.image import ImageSearch, Path, Steps
from genloop.search.regions import least_confident
from genloop.search.settings import starter_class
from genloop.search.strategy import Continued


def _starter(name: str) -> Any:
    """The strategy that makes the start."""
    return starter_class(name, "refine")


class Refine(Continued):
    """Any strategy, and then rounds of critique and image-to-image."""

    class Options(Settings):
        start: Annotated[str, part_name(_starter)] = Field(
            "best_of_n", description="the strategy that makes the start, with n candidates"
        )
        start_options: Annotated[Any, part_options("start", _starter)] = Field(
            {}, validate_default=True, description="keys of that strategy"
        )
        rounds: Repeats = Field(3, description="critiques and drawings at most")
        accept: Share = Field(1.0, description="score from which on an image is good enough")
        strength: Share = Field(0.6, gt=0, description="share of the noise that the first round brings back")
        decay: Share = Field(0.8, gt=0, description="factor of the strength from round to round")
        region: Literal["any", "confidence"] = Field("any", description="which cells are noised again")
        guidance_rise: Weight = Field(0.1, description="added to the factor of the guidance scale in each round")

    @classmethod
    def questions(cls, options: Any) -> tuple[str, ...]:
        """Those of the start, the outcome, and a critique."""
        start = cls.questions_of_start(options)
        return tuple(dict.fromkeys((*start, "outcome", "refine")))

    def choose(self, image: ImageSearch) -> Steps[Path]:
        """The search for one image."""
        options = self.options
        best = yield from self.start.choose(image)
        if "outcome" not in best.p_yes:
            yield from image.ask("outcome", [best])
        failed = 0  # drawings from the best that were taken back
        for number in range(options.rounds):
            if not best.p_yes["outcome"] < options.accept:  # good enough, or unknown
                break
            critique = best.critique
            if critique is None:
                (critique,) = yield from image.criticise([best])
            if critique.failed or not critique.diagnosis:
                break
            (again,) = image.branch(best)
            prompt = image.prompt if failed % 2 else replace(image.prompt, detailed_caption=critique.prompt)
            yield from self._draw(image, again, prompt, number)
            (score,) = yield from image.ask("outcome", [again])
            if score > best.p_yes["outcome"]:
                best, failed = again, 0
            else:
                failed += 1
        return best

    def _draw(self, image: ImageSearch, again: Path, prompt: Prompt, number: int) -> Steps[None]:
        """Noise a path again and walk it to its end; `number`: of the round."""
        options = self.options
        strength = max(round(options.strength * options.decay**number, 6), 1e-6)
        cells = None
        if options.region == "confidence":
            count = max(1, round(strength * math.prod(self.sampler.grid)))
            cells = yield from least_confident(image, again, count)
        image.renoise(again, prompt, strength, round(1 + options.guidance_rise * number, 6), cells)
        yield from image.walk([again])
