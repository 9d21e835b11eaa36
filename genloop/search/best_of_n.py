"""Best-of-N with an outcome judge (the ORM of Guo et al. 2025): finish N candidates, keep the highest P(yes).

The first of equals wins, as published.
"""

from collections.abc import Sequence
from typing import Any

from genloop.protocols import Judge, Sampler
from genloop.records import Choice, Cost, Prompt
from genloop.search.paths import candidate, finish, seeds_of


class BestOfN:
    """Draw N candidates an image side by side and let the judge choose."""

    def __init__(self, sampler: Sampler[Any], judge: Judge | None, num_candidates: int) -> None:
        if judge is None:
            raise ValueError("search.judge: strategy 'best_of_n' needs a judge")
        self.sampler, self.judge, self.num_candidates = sampler, judge, num_candidates

    def search(self, pairs: Sequence[tuple[Prompt, int]], run_seed: int) -> list[Choice]:
        """One choice for each (prompt, sample) pair."""
        n = self.num_candidates
        prompts = [prompt for prompt, _ in pairs for _ in range(n)]
        state = finish(self.sampler, self.sampler.start(prompts, seeds_of(pairs, n, run_seed)))
        images = self.sampler.decode(state.tokens)  # (pairs * N, 3, H, W)
        p_yes = self.judge.p_yes("outcome", prompts, images).tolist()
        cost = Cost(n * self.sampler.num_steps, n)
        choices = []
        for first in range(0, len(prompts), n):
            scores = p_yes[first : first + n]
            rows = [candidate(state, first + i, i, {"outcome": scores[i]}) for i in range(n)]
            choices.append(Choice(scores.index(max(scores)), rows, cost))
        return choices
