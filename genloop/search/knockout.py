"""A knockout tournament between finished candidates: pairs are compared, winners go on, the last one is kept.

A judge that compares two images at once (`Comparer`) is asked N - 1 times about two. Of any other judge the outcome is
asked once for each candidate, and the chances of a pair follow Bradley and Terry (1952) with odds P(yes) / P(no): then
the winner is that of best-of-N. The first of a pair wins where both are even; an unknown comparison counts as even.
"""

import math
from collections.abc import Sequence

from genloop.search.image import ImageSearch, Path, Steps
from genloop.search.strategy import Search


class Knockout(Search):
    """Compare pairs until one is left."""

    def choose(self, image: ImageSearch) -> Steps[Path]:
        """The search for one image."""
        alive = image.start(self.num_candidates)
        yield from image.walk(alive)
        if not image.compares:
            yield from image.ask("outcome", alive)
        while len(alive) > 1:
            first, second = alive[0 : len(alive) - 1 : 2], alive[1::2]
            if image.compares:
                chances = yield from image.compare(first, second)
            else:
                chances = _chances(first, second)
            winners = [b if p_first < 0.5 else a for a, b, p_first in zip(first, second, chances)]
            alive = winners + alive[2 * len(winners) :]
        return alive[0]


def _chances(first: Sequence[Path], second: Sequence[Path]) -> list[float]:
    """P(the first is better) of pairs, from their outcomes."""
    return [bradley_terry(a.p_yes["outcome"], b.p_yes["outcome"]) for a, b in zip(first, second)]


def bradley_terry(first: float, second: float) -> float:
    """P(the first is better) for two P(yes) as strengths on the scale of odds; the known one wins over an unknown."""
    if math.isnan(first) or math.isnan(second):
        return 0.5 + 0.5 * (math.isnan(second) - math.isnan(first))
    win, lose = first * (1 - second), second * (1 - first)
    return win / (win + lose) if win + lose > 0 else 0.5
