"""Tables in Markdown: whatever a cell holds, a row is one line with as many cells as were given."""

import re

import pytest

from genloop.stats.markdown import table_head, table_row


@pytest.mark.parametrize("cell", ["a|b", "two\nlines", "three\r\nlines\n", "\x1b[31mred", ""])
def test_a_row_is_one_line_of_so_many_cells(cell):
    row = table_row([cell, "x"])
    assert "\n" not in row and "\r" not in row and "\x1b" not in row
    assert len(re.findall(r"(?<!\\)\|", row)) == 3
    assert table_head([cell, "x"]) == [row, "| --- | --- |"]
