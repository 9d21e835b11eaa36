"""Parts that stand in no table: what "module:class" may lead to."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from geneval.judge import ShapesOracle
from genloop.factories import Resolve
from genloop.metrics.scores import VqaScore
from genloop.records import Prompt
from genloop.sampling.maskgit.maker import ShowoGenerator
from genloop.search.best_of_n import BestOfN
from genloop.search.image import ImageSearch, Path, Steps
from genloop.shapes.detector import Shapes


class PlainGenerator(ShowoGenerator):
    """Show-o, which draws images of texts and does nothing else."""

    modes: ClassVar[Mapping[str, str]] = {}


class Contrarian(ShapesOracle):
    """Says no where the oracle says yes."""

    def p_yes(self, question: str, prompts: Sequence[Prompt], images: Any) -> Any:
        """(B, 3, H, W) -> (B,)"""
        return 1 - super().p_yes(question, prompts, images)


class LastOfN(BestOfN):
    """Asks about all and takes the last."""

    def choose(self, image: ImageSearch) -> Steps[Path]:
        """The last candidate."""
        yield from super().choose(image)
        return image.paths[-1]


class BlindDetector(Shapes):
    """Sees nothing."""

    @classmethod
    def load(cls, options: Any, resolve: Resolve, device: str) -> Any:
        """The detector, which finds no object in any image."""
        detector = super().load(options, resolve, device)
        detector.detect = lambda images: [[] for _ in images]
        return detector


class OwnColors(Shapes):
    """The colours of the embedded world, under another name."""


class OwnScore(VqaScore):
    """VQAScore under another name."""


class NoPart:
    """Not a part: it has no `Options`."""
