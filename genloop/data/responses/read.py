"""From settings to pairs: which file, how its rows are laid out, and whether it has to be the whole set."""

from typing import Any, Literal

from pydantic import Field

from genloop.config import InputPath, Settings
from genloop.data.responses import columns, mmrb2, vl_rewardbench
from genloop.data.responses.columns import ColumnNames
from genloop.data.responses.pair import ResponsePairs
from genloop.data.responses.tables import Row, open_table

Layout = Literal["vl_rewardbench", "mmrb2", "columns"]


class ResponseData(Settings):
    """Pairs of answers: where they are, and how to read them."""

    path: InputPath = Field(description="folder of `datasets` or of parquet files, or a .parquet, .jsonl or .json file")
    layout: Layout = Field("vl_rewardbench", description="of the rows; columns: any table, by the names of its columns")
    split: str = Field("test", min_length=1, description="of a folder of several")
    images: InputPath | None = Field(None, description="folder of the images that rows name; null: that of the file")
    columns: ColumnNames = ColumnNames()
    full: bool = Field(False, description="refuse VL-RewardBench unless it is whole: 183 + 749 + 318 pairs")


def open_pairs(data: ResponseData) -> ResponsePairs:
    """Every row read and checked, images only looked for; FileNotFoundError or ValueError names file, row and key."""
    table = open_table(data.path, data.split, data.images)
    found: list[Any] = []  # (number of the row, pair, what the row says of its image, and of answers that are images)
    for number, row in enumerate(table.rows):
        read = _read_row(data, row, f"{table.where}: row {number}", number)
        if read is not None:
            for image in (read[1], *read[2:]):
                table.check_image(number, image)
            found.append((number, *read))
    if not found:
        raise ValueError(f"{data.path}: holds no pair that can be judged, of {len(table.rows)} rows")
    pairs = [one[1] for one in found]
    if data.full:
        vl_rewardbench.check_sizes(pairs, f"{data.path}")

    def image_bytes(place: int) -> bytes | None:
        number, _, image, *_ = found[place]
        return table.image(number, image)

    def drawn_bytes(place: int) -> list[bytes]:
        number, _, _, *drawn = found[place]
        return [table.image(number, image) or b"" for image in drawn]

    left_out = len(table.rows) - len(pairs)
    return ResponsePairs(pairs, image_bytes, where=f"{data.path}", left_out=left_out, drawn_bytes=drawn_bytes)


def _read_row(data: ResponseData, row: Row, where: str, number: int) -> tuple[Any, ...] | None:
    """-> a pair, what the row says of its image, and of answers that are images; None: it cannot be judged."""
    if data.layout == "vl_rewardbench":
        return vl_rewardbench.read_row(row, where)
    if data.layout == "mmrb2":
        return mmrb2.read_row(row, where, data.path.stem)
    return columns.read_row(row, where, number, data.columns)
