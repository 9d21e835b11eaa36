"""Strategies that spend a budget of candidates on each image. They know a Sampler and a Judge, no model.

A strategy is written for one image (`genloop.search.strategy.Search.choose`); one scheduler runs it for many.
"""

STRATEGIES = {
    "none": "genloop.search.none:OneCandidate",
    "best_of_n": "genloop.search.best_of_n:BestOfN",
    "parm": "genloop.search.parm:Parm",
}
