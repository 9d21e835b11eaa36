"""What of one prompt could be used for preference pairs, and the pairs: a row of `build_pairs`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from genloop.data.pairs.pair import Pair, to_row
from genloop.data.pairs.rules import Scored
from genloop.records import Prompt


@dataclass
class PromptPairs:
    """One prompt: what of it could be used, and its pairs."""

    prompt: Prompt
    images: int = 0
    left_out: int = 0
    right: int = 0
    judged: int = 0  # images with a verdict
    reopened: int = 0
    wins: int = 0  # of continuations
    losses: int = 0
    pairs: Sequence[Pair] = ()

    def count(self, image: Scored | None) -> None:
        """Count an image of the source; None: it lacks what decides."""
        self.images, self.left_out = self.images + (image is not None), self.left_out + (image is None)
        if image is not None and image.is_right is not None:
            self.right, self.judged = self.right + image.is_right, self.judged + 1

    def row(self) -> dict[str, Any]:
        counts = {name: getattr(self, name) for name in COUNTS}
        of = {"prompt_index": self.prompt.index, "prompt": self.prompt.text, "tag": self.prompt.tag}
        return of | counts | {"pairs": [to_row(pair) for pair in self.pairs]}


COUNTS = ("images", "left_out", "right", "judged", "reopened", "wins", "losses")
