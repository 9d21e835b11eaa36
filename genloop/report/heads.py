"""The large numbers at the top of a page."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Head:
    """One large number with lines below it."""

    title: str
    value: str
    notes: tuple[str, ...]
