"""Strategies that spend a budget of candidates on each image. They know a Sampler and a Judge, no model.

A strategy is built as `strategy(sampler, judge, num_candidates)`; `NEEDS_JUDGE` says which ones ask a judge.
"""

STRATEGIES = {
    "none": "genloop.search.none:OneCandidate",
    "best_of_n": "genloop.search.best_of_n:BestOfN",
}
NEEDS_JUDGE = frozenset({"best_of_n"})
