"""Named judges or critics, each over the same items: one after the other, so that one is in memory at a time."""

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any, TypeVar

from genloop.config import IndependentConfig
from genloop.distributed import World
from genloop.job import note
from genloop.ledger import Ledger, plan_units
from genloop.records import Unit

P = TypeVar("P")


def work_by_name(
    config: IndependentConfig,
    world: World,
    names: Sequence[str],
    num_items: int,
    *,
    load: Callable[[str], P],
    rows_of: Callable[[str, P, list[int]], list[dict[str, Any]]],
    noun: str,
) -> list[Unit]:
    """A row for each name and item, written by unit -> all units; each name is loaded once, at its first unit."""
    units = plan_units(len(names) * num_items, config.unit_size)
    loaded: tuple[str, P] | None = None
    with Ledger.of(config, units, world) as ledger:
        for unit in ledger.claims():
            rows: list[dict[str, Any]] = []
            with ledger.working(unit):
                for name, items in groupby(range(unit.start, unit.stop), lambda item: names[item // num_items]):
                    world.check_stop()
                    if loaded is None or loaded[0] != name:
                        loaded = None  # freed before the next is loaded
                        loaded = name, load(name)
                    places = [item % num_items for item in items]
                    with note(f"{noun} {name}, items {places[0]} to {places[-1]}"):
                        rows += rows_of(name, loaded[1], places)
                    ledger.advance(len(places))
                ledger.complete(unit, rows)
    return units
