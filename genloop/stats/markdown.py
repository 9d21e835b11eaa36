"""Tables in Markdown, and shares in per cent with their intervals."""

from collections.abc import Sequence

from genloop.stats.intervals import Interval
from genloop.terminal import clean


def table_head(names: Sequence[str]) -> list[str]:
    """The two lines above a table's rows."""
    return [table_row(names), table_row(["---"] * len(names))]


def table_row(cells: Sequence[str]) -> str:
    """A line of a table; a bar or a line break inside a cell does not end it."""
    return "| " + " | ".join(clean(cell).replace("\n", " ").replace("|", "\\|") for cell in cells) + " |"


def percent(share: Interval, mark: str = "") -> str:
    """62.5 % (40.0 to 80.9), a `mark` behind the interval."""
    return f"{100 * share.estimate:.1f} % ({100 * share.low:.1f} to {100 * share.high:.1f}{mark})"
