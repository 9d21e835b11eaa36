"""Any table of pairs, by the names of its columns."""

from typing import Any

from pydantic import Field

from genloop.config import Settings
from genloop.data.responses.layout import Row, text_of
from genloop.data.responses.pair import ResponsePair


class ColumnNames(Settings):
    """Which column holds what. The first answer is the better one unless `better` says otherwise."""

    query: str = Field("query", description="the question")
    first: str = Field("chosen", description="one answer")
    second: str = Field("rejected", description="the other answer")
    better: str | None = Field(None, description="which is better; null: the first")
    better_first: str = Field("0", description="what `better` says where the first is; anything else: the second")
    image: str | None = Field("image", description="the image: its bytes, or its file; null: there are none")
    id: str | None = Field(None, description="a name of the row; null: its number")
    group: str | None = Field(None, description="of which accuracies are told apart; null: one group")


def read_row(row: Row, where: str, number: int, names: ColumnNames) -> tuple[ResponsePair, Any]:
    """-> a pair, and what the row says of its image; ValueError names `where` and the column."""
    query, first, second = (text_of(row, name, where) for name in (names.query, names.first, names.second))
    best = 0 if names.better is None or str(_value(row, names.better, where)) == names.better_first else 1
    group = "all" if names.group is None else str(_value(row, names.group, where))
    name = str(number) if names.id is None else str(_value(row, names.id, where))
    image = None if names.image is None else _value(row, names.image, where)
    return ResponsePair(name, query, (first, second), best, group, group), image


def _value(row: Row, name: str, where: str) -> Any:
    if row.get(name) is None:
        raise ValueError(f"{where}: {name}: is missing; name the column in data.columns")
    return row[name]
