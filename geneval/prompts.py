"""GenEval's prompt generator (Ghosh et al. 2023): seed 43 and 100 a task give the 553 published prompts.

The order of the draws from the one generator is part of the format: single objects first (all of them, shuffled),
then `num_prompts` of each other task. Repeated prompts are dropped at the end, the first one stays. K = names.
"""

from collections.abc import Callable, Sequence

import numpy as np

from geneval.names import OBJECT_NAMES
from genloop.data.prompts import caption
from genloop.records import COLORS, RELATIONS, Clause, Prompt

Draw = Callable[[np.random.Generator, Sequence[str]], tuple[Clause, ...]]


def generate(seed: int = 43, num_prompts: int = 100, names: Sequence[str] = OBJECT_NAMES) -> list[Prompt]:
    """The prompts of a seed: K single objects, then `num_prompts` of each of the five other tasks, less duplicates.

    `names` must hold "person", which never gets a colour. Raises ValueError.
    """
    if num_prompts < 0:
        raise ValueError(f"num_prompts must be at least 0, found {num_prompts}")
    if "person" not in names or len(set(names)) != len(names) or len(names) < 3:
        raise ValueError(f"names must be at least 3 different ones with 'person' among them, found {list(names)}")
    rng = np.random.default_rng(seed)
    order = rng.choice(len(names), size=len(names), replace=False)
    drawn: list[tuple[str, tuple[Clause, ...]]] = [("single_object", (Clause(names[k], 1),)) for k in order]
    for tag, draw in _DRAWS.items():
        drawn += [(tag, draw(rng, names)) for _ in range(num_prompts)]
    unique = dict.fromkeys(drawn)  # keeps the first of equal ones
    return [_prompt(index, tag, include) for index, (tag, include) in enumerate(unique)]


def _prompt(index: int, tag: str, include: tuple[Clause, ...]) -> Prompt:
    exclude = tuple(Clause(clause.class_name, clause.count + 1) for clause in include) if tag == "counting" else ()
    return Prompt(index, caption(tag, include), tag, include, exclude)


def _two_object(rng: np.random.Generator, names: Sequence[str]) -> tuple[Clause, ...]:
    return tuple(Clause(names[k], 1) for k in rng.choice(len(names), size=2, replace=False))


def _counting(rng: np.random.Generator, names: Sequence[str]) -> tuple[Clause, ...]:
    name = names[rng.choice(len(names))]
    return (Clause(name, int(rng.integers(2, 4, endpoint=True))),)


def _colors(rng: np.random.Generator, names: Sequence[str]) -> tuple[Clause, ...]:
    name = _but_person(rng.choice(len(names) - 1), names)
    return (Clause(name, 1, COLORS[rng.choice(len(COLORS))]),)


def _position(rng: np.random.Generator, names: Sequence[str]) -> tuple[Clause, ...]:
    subject, reference = rng.choice(len(names), size=2, replace=False)
    relation = RELATIONS[rng.choice(len(RELATIONS))]
    return Clause(names[reference], 1), Clause(names[subject], 1, position=(relation, 0))


def _color_attr(rng: np.random.Generator, names: Sequence[str]) -> tuple[Clause, ...]:
    found = [_but_person(k, names) for k in rng.choice(len(names) - 1, size=2, replace=False)]
    colors = rng.choice(len(COLORS), size=2, replace=False)
    return tuple(Clause(name, 1, COLORS[color]) for name, color in zip(found, colors))


def _but_person(draw: int, names: Sequence[str]) -> str:
    """A draw from K - 1 -> one of the names that follow "person", cyclically."""
    return names[(draw + 1 + names.index("person")) % len(names)]


_DRAWS: dict[str, Draw] = {
    "two_object": _two_object,
    "counting": _counting,
    "colors": _colors,
    "position": _position,
    "color_attr": _color_attr,
}
