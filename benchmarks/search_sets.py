"""The strategies that benchmarks/search.py measures, with their options; `tune` is run on training prompts only."""

from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Setup:
    """One strategy. A pool gives best-of-k for every k up to its n."""

    label: str
    family: str
    strategy: str
    n: int
    options: dict[str, Any]
    sampling: dict[str, Any] = field(default_factory=dict)
    judge: str = "tuned"
    is_pool: bool = False


@dataclass(frozen=True)
class Probe:
    """Previews whose potential is held against what became of them."""

    pool: str
    n: int
    steps: tuple[int, ...]
    sampling: dict[str, dict[str, Any]]


DEFAULT_ORDER = {"order": "confidence", "token_temperature": 1.0, "temperature_mode": "maskgit"}
PROBED = Probe("orm", 4, (3, 4, 6, 8, 9, 12), {"object_first": {}, "confidence": DEFAULT_ORDER})


def parm(n: int, at: Any, keep: Any) -> Setup:
    """Pruning by rank."""
    rungs = "/".join(f"{s}:{k}" for s, k in zip(_listed(at), _listed(keep)))
    return Setup(f"parm {n} at {rungs}", "PARM", "parm", n, {"at": at, "keep": keep})


def rounds(n: int, at: Any, error: float, group: int = 4) -> Setup:
    """Rounds until the judge is sure."""
    name = f"adaptive {n}, rounds of {group}" + (f" at {at}" if group > 1 else "") + f", error {error}"
    family = "adaptive PARM" if group > 1 else "adaptive ORM"
    return Setup(name, family, "adaptive", n, {"group": group, "error": error} | ({"at": at} if group > 1 else {}))


def corrected(n: int, at: int, keep: int, accept: float, fraction: float, steps: int, most: int = 6) -> Setup:
    """PARM, then corrections."""
    options = {"start": "parm", "start_options": {"at": at, "keep": keep}, "accept": accept, "rounds": most}
    options |= {"fraction": fraction, "steps": steps}
    label = f"parm++ {n} at {at}:{keep}, accept {accept}, {fraction:.0%} in {steps}, {most} rounds"
    return Setup(label, "PARM++", "parm_plus_plus", n, options)


def refined(n: int, accept: float, fraction: float, steps: int, most: int = 6) -> Setup:
    """Best of n, then corrections."""
    options = {"start": "best_of_n", "accept": accept, "rounds": most, "fraction": fraction, "steps": steps}
    label = f"best of {n}, then parm++, accept {accept}, {fraction:.0%} in {steps}, {most} rounds"
    return Setup(label, "PARM++", "parm_plus_plus", n, options)


def _listed(value: Any) -> list[int]:
    return value if isinstance(value, list) else [value]


TUNE = [
    Setup("orm", "ORM (best of k)", "best_of_n", 16, {}, is_pool=True),
    *(parm(4, at, 1) for at in (5, 6, 8, 9)),
    *(parm(8, at, 2) for at in (5, 6, 8, 9)),
    parm(8, [5, 8], [4, 2]),
    *(rounds(n, at, error) for n in (8, 12, 16) for at in (6, 8) for error in (0.2, 0.3, 0.4, 0.5)),
    *(rounds(n, None, error, 1) for n in (8, 16) for error in (0.2, 0.3, 0.4)),
    *(corrected(4, 8, 1, a, f, s) for a in (0.5, 0.7) for f, s in ((0.3, 4), (0.45, 6))),
]
# Chosen by TUNE: rungs at 5 and 8, rounds at step 6, corrections of 30 % in 4 steps, accepted from P(yes) .7 on.
TEST = [
    Setup("orm", "ORM (best of k)", "best_of_n", 20, {}, is_pool=True),
    Setup("orm, zero-shot judge", "ORM, zero-shot", "best_of_n", 20, {}, judge="zero_shot", is_pool=True),
    Setup("orm, stopped at 8", "ORM, truncated sampler", "best_of_n", 12, {}, {"stop_after": 8}, is_pool=True),
    Setup("orm, published order", "ORM, published order", "best_of_n", 4, {}, DEFAULT_ORDER, is_pool=True),
    parm(4, 6, 1),
    parm(8, 6, 2),
    parm(8, [5, 8], [4, 2]),
    parm(12, [5, 8], [6, 3]),
    parm(20, [5, 8], [10, 4]),
    Setup("parm 8, thresholds", "PARM, thresholds", "parm", 8, {"mode": "threshold", "start": 3}),
    Setup("parm 8, thresholds, bisection", "PARM, thresholds", "parm", 8, {"mode": "threshold", "clarity": "bisect"}),
    Setup("parm 8, as released", "PARM, released", "parm", 8, {"mode": "released"}),
    Setup("prm 4, mean of potential", "PRM", "prm", 4, {"question": "potential", "start": 3, "stride": 3}),
    Setup("successive halving 8", "halving", "successive_halving", 8, {}),
    Setup("knockout 8", "knockout", "knockout", 8, {}),
    rounds(8, None, 0.3, 1),
    *(rounds(n, 6, 0.3) for n in (8, 12, 20)),
    rounds(8, 8, 0.3),
    corrected(4, 6, 1, 0.7, 0.3, 4),
    corrected(4, 8, 1, 0.7, 0.3, 4),
    corrected(8, 6, 2, 0.7, 0.3, 4),
]
# Of a second judge: what the targets are about.
SECOND = [s for s in TEST if s.family in {"ORM (best of k)", "PARM", "adaptive ORM", "adaptive PARM", "PARM++"}]
# The same options where tokens are revealed in the published order, previews judged late, nothing chosen by results.
PUBLISHED = [
    replace(setup, sampling=DEFAULT_ORDER)
    for setup in (
        Setup("orm", "ORM (best of k)", "best_of_n", 20, {}, is_pool=True),
        parm(4, 6, 1),
        parm(8, [5, 8], [4, 2]),
        parm(8, 12, 2),
        rounds(8, None, 0.3, 1),
        rounds(8, 6, 0.3),
        rounds(12, 12, 0.3),
        corrected(4, 6, 1, 0.7, 0.3, 4),
        refined(4, 0.7, 0.3, 4),
    )
]
SETS = {"tune": TUNE, "test": TEST, "second": SECOND, "published": PUBLISHED}
