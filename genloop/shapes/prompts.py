"""The prompt sets of the embedded world: GenEval's six tasks over its shapes and colours, with combinations held out.

All sentences that the world can word are split once and for all, independently of any seed:
- **heldout**: names a held-out combination: 10 of the 100 (shape, colour) pairs, 9 of the 45 unordered pairs of shapes,
  or 6 of the 30 (number, shape) pairs. Never used for training. Every shape, colour, number and relation is named
  elsewhere; a single object cannot be held out, so this set has five tasks.
- **test**: names seen combinations only. Of `position` and `color_attr`, which have sentences to spare, these sentences
  are kept from training; of the other four tasks every seen sentence is in both sets.
- **train**: the seen sentences that training may name.
- **learn_test**, **learn**: what learning from preferences is measured on, and what it may name. Half of the seen
  sentences of every task, by a hash of what they say, are learn_test: a sentence and the same in another order ("a star
  and a ring", "a ring and a star") are on one side. The other half, as far as it is in train, is learn. So learn has no
  sentence in common with learn_test; with test it has, in the four tasks that test has all sentences of.
Sizes: see `pool`. A set never repeats a sentence, so small tasks give fewer than `per_tag` prompts, unless it is asked
to: then it goes through the sentences of a small task again and again. A repeated sentence is another prompt with other
noise, but the same cluster in statistics.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cache
from itertools import combinations, permutations, product

import numpy as np

from genloop.data.prompts import caption
from genloop.records import COLORS, RELATIONS, TAGS, Clause, Prompt
from genloop.shapes.scenes import MAX_OBJECTS, SHAPES

SETS = ("train", "test", "heldout", "learn", "learn_test")  # the order keys draws
NUMBERS = tuple(range(2, MAX_OBJECTS + 1))
_WORLD = 20250  # keys the split; changing it changes the world
_RESERVED = {"position": 100, "color_attr": 1000}  # test sentences that training never names


@cache
def held_out_colors() -> frozenset[tuple[str, str]]:
    """The (shape, colour) pairs that no training prompt names: one for each shape and one for each colour."""
    order = np.random.default_rng([_WORLD, 0]).permutation(len(COLORS))
    return frozenset((shape, COLORS[i]) for shape, i in zip(SHAPES, order, strict=True))


@cache
def held_out_pairs() -> frozenset[frozenset[str]]:
    """The unordered pairs of shapes that no training prompt names together."""
    pairs = list(combinations(SHAPES, 2))
    chosen = np.random.default_rng([_WORLD, 1]).choice(len(pairs), size=9, replace=False)
    return frozenset(frozenset(pairs[i]) for i in chosen)


@cache
def held_out_counts() -> frozenset[tuple[int, str]]:
    """The (number, shape) pairs that no training prompt names: two shapes for each number."""
    shapes = np.random.default_rng([_WORLD, 2]).permutation(len(SHAPES))
    return frozenset((number, SHAPES[shapes[2 * i + k]]) for i, number in enumerate(NUMBERS) for k in range(2))


def names_held_out(include: Iterable[Clause]) -> bool:
    """Whether the clauses name a held-out combination."""
    clauses = tuple(include)
    colored = any((clause.class_name, clause.color) in held_out_colors() for clause in clauses)
    counted = any((clause.count, clause.class_name) in held_out_counts() for clause in clauses)
    paired = frozenset(clause.class_name for clause in clauses) in held_out_pairs()
    return colored or counted or paired


@cache
def pool(name: str, tag: str) -> tuple[Prompt, ...]:
    """Every sentence of a task in a set, in a fixed shuffled order; `index` counts from 0.

    Sizes in the order of TAGS: train 10, 72, 24, 90, 188, 4256; test 10, 72, 24, 90, 100, 1000;
    heldout 0, 18, 6, 10, 72, 2844; learn 5, 36, 12, 45, 96, 2153; learn_test 5, 36, 12, 45, 144, 2628.
    """
    _check_name(name)
    if name in ("learn", "learn_test"):
        measured = _measured(tag)
        seen = pool("train", tag) + (pool("test", tag) if name == "learn_test" and tag in _RESERVED else ())
        chosen = [prompt for prompt in seen if (prompt.text in measured) == (name == "learn_test")]
        return tuple(replace(prompt, index=index) for index, prompt in enumerate(chosen))
    wanted = [include for include in _sentences(tag) if names_held_out(include) == (name == "heldout")]
    order = np.random.default_rng([_WORLD, 3, TAGS.index(tag)]).permutation(len(wanted))
    shuffled = [wanted[i] for i in order]
    reserved = _RESERVED.get(tag, 0)
    if reserved and name == "test":
        shuffled = shuffled[:reserved]
    elif reserved and name == "train":
        shuffled = shuffled[reserved:]
    return tuple(_prompt(index, tag, include) for index, include in enumerate(shuffled))


def prompt_set(name: str, seed: int, per_tag: int, *, repeat: bool = False) -> list[Prompt]:
    """Up to `per_tag` prompts of each task of a set (see SETS), drawn without repetition, in task order.

    With `repeat` exactly `per_tag` of every task that has sentences, each as often as the others or once more.
    Raises ValueError for an unknown set or a `per_tag` below 1.
    """
    _check_name(name)
    if per_tag < 1:
        raise ValueError(f"per_tag must be at least 1, found {per_tag}")
    chosen: list[Prompt] = []
    for tag in TAGS:
        candidates = pool(name, tag)
        order = np.random.default_rng([seed, SETS.index(name), TAGS.index(tag)]).permutation(len(candidates))
        if repeat and len(order):
            order = np.resize(order, per_tag)  # the same order, from its start again
        chosen += [candidates[i] for i in order[:per_tag]]
    return [Prompt(i, prompt.text, prompt.tag, prompt.include, prompt.exclude) for i, prompt in enumerate(chosen)]


@cache
def _measured(tag: str) -> frozenset[str]:
    """The texts of learn_test: of the sentences that say the same, sorted by a hash, the first half."""
    same: dict[object, list[str]] = defaultdict(list)
    for include in _sentences(tag):
        if not names_held_out(include):
            same[_meaning(include)].append(caption(tag, include))
    groups = sorted(same.values(), key=lambda texts: hashlib.blake2b(min(texts).encode()).digest())
    return frozenset(text for texts in groups[: len(groups) // 2] for text in texts)


def _meaning(include: tuple[Clause, ...]) -> object:
    """What clauses ask for, whatever their order: "a star left of a ring" is "a ring right of a star"."""
    place = include[-1].position
    if place is None:
        return frozenset(include)
    relation, first, second = place[0], include[1].class_name, include[0].class_name
    opposite = {"right of": "left of", "below": "above"}
    return (opposite[relation], second, first) if relation in opposite else (relation, first, second)


def _check_name(name: str) -> None:
    if name not in SETS:
        raise ValueError(f"unknown prompt set {name!r} of the shapes world ({', '.join(SETS)})")


def _prompt(index: int, tag: str, include: tuple[Clause, ...]) -> Prompt:
    exclude = (Clause(include[0].class_name, include[0].count + 1),) if tag == "counting" else ()
    return Prompt(index, caption(tag, include), tag, include, exclude)


def _sentences(tag: str) -> Iterator[tuple[Clause, ...]]:
    """Every list of clauses that GenEval's generator could draw for a task over this world's names."""
    if tag == "single_object":
        yield from ((Clause(shape, 1),) for shape in SHAPES)
    elif tag == "two_object":
        yield from ((Clause(a, 1), Clause(b, 1)) for a, b in permutations(SHAPES, 2))
    elif tag == "counting":
        yield from ((Clause(shape, number),) for number, shape in product(NUMBERS, SHAPES))
    elif tag == "colors":
        yield from ((Clause(shape, 1, color),) for shape, color in product(SHAPES, COLORS))
    elif tag == "position":
        for (subject, target), relation in product(permutations(SHAPES, 2), RELATIONS):
            yield Clause(target, 1), Clause(subject, 1, None, (relation, 0))
    elif tag == "color_attr":
        for (a, b), (first, second) in product(permutations(SHAPES, 2), permutations(COLORS, 2)):
            yield Clause(a, 1, first), Clause(b, 1, second)
    else:
        raise ValueError(f"unknown task {tag!r} ({', '.join(TAGS)})")
