"""Which images the page shows: a fixed number, spread over tasks and verdicts; the same ones for the same rows."""

from collections.abc import Hashable, Sequence
from typing import Protocol, TypeVar


class Showable(Protocol):
    """Something with a task and an outcome; the outcomes of a task share its places evenly."""

    @property
    def tag(self) -> str: ...
    @property
    def outcome(self) -> str: ...


T = TypeVar("T", bound=Showable)
Shown = TypeVar("Shown")


def spread(items: Sequence[T], limit: int) -> list[T]:
    """At most `limit` items in their order, spread over tasks, then over the outcomes of a task (each starts with a
    different one), then at equal distances within an outcome."""
    groups: dict[str, dict[str, list[int]]] = {}
    for position, item in enumerate(items):
        groups.setdefault(item.tag, {}).setdefault(item.outcome, []).append(position)
    chosen: list[int] = []
    places = deal([sum(map(len, outcomes.values())) for outcomes in groups.values()], limit)
    for number, (outcomes, share) in enumerate(zip(groups.values(), places)):
        names = sorted(outcomes)
        first = number % len(names)
        ordered = [outcomes[name] for name in names[first:] + names[:first]]
        for group, count in zip(ordered, deal([len(group) for group in ordered], share)):
            chosen += [group[i * len(group) // count] for i in range(count)]
    return [items[position] for position in sorted(chosen)]


def best_and_worst(scored: Sequence[tuple[float, Hashable, Shown]], limit: int) -> list[tuple[str, list[Shown]]]:
    """(score, group, item) -> [("Best", items of the highest scores), ("Worst", those of the lowest)], one a group.

    At most `limit` of each, and no more than half of all items; [] where nothing is scored.
    """
    ordered = sorted(scored, key=lambda one: one[0])
    limit = max(1, min(limit, len(ordered) // 2))
    best = {group: item for _, group, item in ordered}  # the last of a group is its best
    highest = sorted({group: score for score, group, _ in ordered}.items(), key=lambda pair: -pair[1])
    worst = {group: item for _, group, item in reversed(ordered)}
    lowest = sorted({group: score for score, group, _ in reversed(ordered)}.items(), key=lambda pair: pair[1])
    found = {"Best": [best[group] for group, _ in highest], "Worst": [worst[group] for group, _ in lowest]}
    return [(name, items[:limit]) for name, items in found.items()] if ordered else []


def deal(sizes: Sequence[int], places: int) -> list[int]:
    """Places for each group: assigned round-robin, none gets more than its size."""
    given = [0] * len(sizes)
    while places > 0 and given != list(sizes):
        for i, size in enumerate(sizes):
            if places > 0 and given[i] < size:
                given[i] += 1
                places -= 1
    return given
