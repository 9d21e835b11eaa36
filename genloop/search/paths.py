"""What strategies share: walking candidates through the sampler from the first step to the last."""

from collections.abc import Sequence

from genloop.protocols import S, Sampler, State
from genloop.records import Candidate, Prompt, Seed


def seeds_of(pairs: Sequence[tuple[Prompt, int]], num_candidates: int, run_seed: int) -> list[Seed]:
    """The keys of all candidates, those of one (prompt, sample) pair next to each other."""
    return [
        Seed(run_seed, prompt.index, sample, candidate)
        for prompt, sample in pairs
        for candidate in range(num_candidates)
    ]


def finish(sampler: Sampler[S], state: S) -> S:
    """All remaining steps of every row."""
    while state.steps < state.lengths:
        state = sampler.step(state)
    return state


def candidate(state: State, row: int, index: int, p_yes: dict[str, float]) -> Candidate:
    """Row `row` of a finished state as a record."""
    return Candidate(index, state.tokens[row].cpu().numpy(), state.revealed_at[row].cpu().numpy(), p_yes)
