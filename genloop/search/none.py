"""No search: one candidate an image, nobody is asked."""

from collections.abc import Sequence
from typing import Any

from genloop.protocols import Judge, Sampler
from genloop.records import Choice, Cost, Prompt
from genloop.search.paths import candidate, finish, seeds_of


class OneCandidate:
    """Draw candidate 0 of every image and take it."""

    def __init__(self, sampler: Sampler[Any], judge: Judge | None = None, num_candidates: int = 1) -> None:
        if num_candidates != 1:
            raise ValueError(f"search.n: strategy 'none' draws one candidate, found {num_candidates}")
        self.sampler = sampler

    def search(self, pairs: Sequence[tuple[Prompt, int]], run_seed: int) -> list[Choice]:
        """One choice for each (prompt, sample) pair."""
        state = self.sampler.start([prompt for prompt, _ in pairs], seeds_of(pairs, 1, run_seed))
        state = finish(self.sampler, state)
        cost = Cost(self.sampler.num_steps, 0)
        return [Choice(0, [candidate(state, row, 0, {})], cost) for row in range(len(pairs))]
