"""Which images the page shows: a fixed number, spread over tasks and verdicts; the same ones for the same rows."""

from collections.abc import Sequence
from typing import Protocol, TypeVar


class Showable(Protocol):
    """Something with a task and an outcome; the outcomes of a task share its places evenly."""

    @property
    def tag(self) -> str: ...
    @property
    def outcome(self) -> str: ...


T = TypeVar("T", bound=Showable)


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


def deal(sizes: Sequence[int], places: int) -> list[int]:
    """Places for each group: assigned round-robin, none gets more than its size."""
    given = [0] * len(sizes)
    while places > 0 and given != list(sizes):
        for i, size in enumerate(sizes):
            if places > 0 and given[i] < size:
                given[i] += 1
                places -= 1
    return given
