"""Best-of-N with an outcome judge (the ORM of Guo et al. 2025): finish N candidates, keep the highest P(yes).

The first of equals wins, as published.
"""

from genloop.search.image import ImageSearch, Path, Steps
from genloop.search.strategy import Search


class BestOfN(Search):
    """Draw N candidates an image and let the judge choose."""

    def choose(self, image: ImageSearch) -> Steps[Path]:
        """Finish all, ask once about each."""
        paths = image.start(self.num_candidates)
        yield from image.walk(paths)
        yield from image.ask("outcome", paths)
        return image.best("outcome", paths)
