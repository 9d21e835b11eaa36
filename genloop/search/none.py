"""No search: one candidate an image, nobody is asked."""

from typing import Any

from genloop.search.image import ImageSearch, Path, Steps
from genloop.search.strategy import Search


class OneCandidate(Search):
    """Draw candidate 0 of every image and take it."""

    @classmethod
    def questions(cls, options: Any) -> tuple[str, ...]:
        """Nothing."""
        return ()

    @classmethod
    def check(cls, num_candidates: int, num_steps: int, options: Any) -> None:
        """There is one candidate."""
        if num_candidates != 1:
            raise ValueError(f"search.n: strategy 'none' draws one candidate, found {num_candidates}")

    def choose(self, image: ImageSearch) -> Steps[Path]:
        """Walk to the end."""
        (path,) = image.start()
        yield from image.walk([path])
        return path
