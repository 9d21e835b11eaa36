"""Strategies that spend a budget of candidates on each image. They know a Sampler and a Judge, no model.

A strategy is written for one image (`genloop.search.strategy.Search.choose`); one scheduler runs it for many.
"""

STRATEGIES = {
    "none": "genloop.search.none:OneCandidate",
    "best_of_n": "genloop.search.best_of_n:BestOfN",
    "prm": "genloop.search.prm:Prm",
    "parm": "genloop.search.parm:Parm",
    "parm_plus_plus": "genloop.search.parm_plus_plus:ParmPlusPlus",
    "successive_halving": "genloop.search.successive_halving:SuccessiveHalving",
    "knockout": "genloop.search.knockout:Knockout",
    "refine": "genloop.search.refine:Refine",
    "adaptive": "genloop.search.adaptive:Adaptive",
}
