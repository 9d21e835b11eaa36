"""Documents packed into rows of at most `max_length` tokens: longest first, each into the fullest row that has room."""

import bisect
from collections.abc import Sequence


def one_by_one(lengths: Sequence[int]) -> list[tuple[int, ...]]:
    """Every document in a row of its own."""
    return [(number,) for number in range(len(lengths))]


def pack_documents(lengths: Sequence[int], max_length: int) -> list[tuple[int, ...]]:
    """Lengths of documents -> the numbers of those in each row; ValueError for one that is longer than a row.

    Best fit, decreasing: rows are seldom more than a fifth more than the fewest that are possible.
    """
    rows: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (tokens left, row), sorted
    for number in sorted(range(len(lengths)), key=lambda number: (-lengths[number], number)):
        length = lengths[number]
        if length > max_length:
            raise ValueError(f"document {number} has {length} tokens, a row {max_length}")
        place = bisect.bisect_left(room, (length, -1))
        if place == len(room):
            room_left, row = max_length, len(rows)
            rows.append([])
        else:
            room_left, row = room.pop(place)
        rows[row].append(number)
        bisect.insort(room, (room_left - length, row))
    return [tuple(sorted(row)) for row in rows]
