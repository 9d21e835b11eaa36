"""The pieces of the page: which images are shown, frames of the unmasking, chart positions, names of runs."""

import base64
import io
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from genloop.report.page.chart import dot_and_whisker
from genloop.report.page.pictures import FRAME_WIDTH, cover_path, embed, filmstrip
from genloop.report.page.selection import deal, spread
from genloop.report.runs import short_names
from genloop.stats.intervals import Interval


@dataclass(frozen=True)
class Item:
    tag: str
    outcome: str
    number: int


@given(st.lists(st.integers(0, 9), max_size=6), st.integers(0, 60))
def test_places_are_dealt_evenly_and_never_beyond_a_group(sizes: list[int], places: int) -> None:
    given_ = deal(sizes, places)
    assert sum(given_) == min(places, sum(sizes))
    assert all(got <= size for got, size in zip(given_, sizes))
    short = [got for got, size in zip(given_, sizes) if got < size]
    assert not short or max(given_) - min(short) <= 1


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["right", "wrong"])), max_size=60), st.integers(0, 30)
)
def test_a_spread_is_a_subset_in_order_with_every_kind_while_there_is_room(
    kinds: list[tuple[str, str]], limit: int
) -> None:
    items = [Item(tag, outcome, number) for number, (tag, outcome) in enumerate(kinds)]
    shown = spread(items, limit)
    numbers = [item.number for item in shown]
    assert numbers == sorted(set(numbers)) and len(shown) == min(limit, len(items))
    if limit >= 6:
        assert {(i.tag, i.outcome) for i in shown} == {(i.tag, i.outcome) for i in items}


def test_one_item_a_task_still_shows_both_outcomes() -> None:
    items = [Item(tag, outcome, 0) for tag in "abcd" for outcome in ("right", "wrong")]
    assert [item.outcome for item in spread(items, 4)] == ["right", "wrong", "right", "wrong"]


def test_a_strip_uncovers_everything_by_its_last_frame() -> None:
    revealed_at = np.array([0, 0, 1, 2, 2, 2, 3, 4, 4])
    frames = filmstrip(revealed_at, (3, 3), 5, num_frames=7)
    assert [frame.step for frame in frames] == [1, 2, 3, 4, 5]
    assert [frame.share for frame in frames] == pytest.approx([2 / 9, 3 / 9, 6 / 9, 7 / 9, 1])
    assert frames[-1].cover == ""


def test_a_frame_covers_what_later_steps_reveal() -> None:
    first = filmstrip(np.array([0, 3, 0, 3]), (2, 2), 4, num_frames=4)[0]
    assert first.share == 0.5
    assert first.cover == f"M{FRAME_WIDTH // 2} 0h48v48H48zM48 48h48v48H48z"


@given(st.integers(1, 8), st.integers(1, 8), st.integers(0, 2**32 - 1))
def test_the_cover_lies_over_exactly_the_masked_cells(height: int, width: int, seed: int) -> None:
    masked = np.random.default_rng(seed).random((height, width)) < 0.5
    covered = np.zeros_like(masked)
    for x, y, length in re.findall(r"M(\d+) (\d+)h(\d+)v1H\d+z", cover_path(masked, 1.0)):
        covered[int(y), int(x) : int(x) + int(length)] = True
    assert (covered == masked).all()


def test_small_images_are_embedded_without_loss(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    picture = embed(tmp_path / "a.png")
    assert picture is not None and picture.is_pixel_art
    with Image.open(io.BytesIO(base64.b64decode(picture.uri.partition(",")[2]))) as back:
        assert (np.asarray(back) == pixels).all()


@pytest.mark.parametrize("size", [(600, 300), (300, 600)])
def test_large_images_keep_their_proportions(tmp_path: Path, size: tuple[int, int]) -> None:
    Image.new("RGBA", size, (1, 2, 3, 128)).save(tmp_path / "a.png")
    picture = embed(tmp_path / "a.png")
    assert picture is not None and not picture.is_pixel_art
    assert sorted((picture.width, picture.height)) == [112, 224]
    assert (picture.width > picture.height) == (size[0] > size[1])


def test_marks_lie_in_proportion_and_never_outside_the_plot() -> None:
    rows = [("a", [(0, Interval(0.25, 0.1, 0.5)), (1, None)]), ("b", [(1, Interval(0.9, -0.2, 1.3))])]
    chart = dot_and_whisker(rows, [(0.0, "0"), (0.5, "50"), (1.0, "100")])
    first, second = chart.rows[0].marks[0], chart.rows[1].marks[0]
    assert (first.x, first.x1, first.x2) == (25, 10, 50)
    assert (second.x1, second.x2, second.run) == (0, 100, 1)
    assert chart.rows[1].top == chart.rows[0].height and second.y > first.y
    assert chart.height == sum(row.height for row in chart.rows)


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (["runs/a"], ["a"]),
        (["runs/a", "runs/b"], ["a", "b"]),
        (["x/a/v", "x/b/v", "x/c"], ["a/v", "b/v", "c"]),
        (["x/a", "x/a"], ["a", "a"]),
    ],
)
def test_runs_are_called_by_the_shortest_path_that_tells_them_apart(folders: list[str], names: list[str]) -> None:
    assert short_names([Path(folder) for folder in folders]) == names
