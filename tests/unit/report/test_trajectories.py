"""The ways of candidates: what was seen and said at each step, where they were cut, what was corrected, the cost."""

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from genloop.data.images import contact_sheet, encode_png
from genloop.report import write_report
from genloop.report.page.costs import Expense, expense, mean, unit_of
from genloop.report.page.pictures import Sheet, embed_sheet
from genloop.report.page.trajectories import CHART_HEIGHT, MAX_ROWS, trajectories
from genloop.report.runs import GenerationRecord
from genloop.runs.rows import Answer, GenerationCost, RecordedCandidate
from tests.unit.report.test_page import Page, page_of
from tests.worlds.report_runs import NUM_STEPS, Sketch, write_runs

SEARCHED = Sketch(num_candidates=4, searched=True, prompts_per_task=1)


def candidate(index: int, p_yes: float | None, answers: Sequence[Answer] = (), **more: Any) -> RecordedCandidate:
    known = {} if p_yes is None else {"outcome": p_yes}
    return RecordedCandidate(candidate=index, tokens="", p_yes=known, trace=tuple(answers), **more)


def record(*candidates: RecordedCandidate, chosen: int = 0, previews: Path | None = None) -> GenerationRecord:
    steps = np.zeros(36, dtype=int)
    return GenerationRecord("parm", (6, 6), 18, steps, chosen, candidates, GenerationCost(), previews=previews)


def page(tmp_path: Path, sketch: Sketch = SEARCHED, closeups: int = 2) -> Page:
    return page_of(write_report([write_runs(tmp_path, "a", sketch)], num_closeups=closeups))


def pictures(seed: int, rows: int, columns: int, side: tuple[int, int]) -> list[list[np.ndarray]]:
    rng = np.random.default_rng(seed)
    return [[rng.integers(0, 256, (*side, 3), dtype=np.uint8) for _ in range(columns)] for _ in range(rows)]


def sheet_of(path: Path, seen: list[list[np.ndarray]], gap: int) -> Sheet | None:
    (path / "sheet.png").write_bytes(encode_png(contact_sheet(seen, gap=gap)))
    (path / "image.png").write_bytes(encode_png(seen[0][0]))
    return embed_sheet(path / "sheet.png", len(seen), len(seen[0]), path / "image.png")


@pytest.mark.parametrize("gap", [0, 2, 5])
@pytest.mark.parametrize("shape", [(1, 1), (3, 2), (2, 4)])
def test_pictures_of_a_sheet_are_found_whatever_lies_between_them(tmp_path, gap, shape):
    seen = pictures(0, *shape, (24, 20))
    sheet = sheet_of(tmp_path, seen, gap)
    assert sheet is not None and sheet.is_pixel_art and (sheet.width, sheet.height) == (20, 24)
    with Image.open(io.BytesIO(base64.b64decode(sheet.picture.uri.partition(",")[2]))) as back:
        assert (np.asarray(back) == np.vstack([np.hstack(row) for row in seen])).all()


def test_large_pictures_of_a_sheet_are_made_smaller(tmp_path):
    sheet = sheet_of(tmp_path, pictures(0, 2, 3, (256, 512)), 2)
    assert sheet is not None and (sheet.width, sheet.height) == (96, 48)
    assert (sheet.picture.width, sheet.picture.height) == (288, 96)
    assert sheet.picture.uri.startswith("data:image/jpeg")


def test_a_sheet_that_does_not_fit_is_not_cut_up(tmp_path):
    seen = pictures(0, 2, 3, (24, 24))
    assert sheet_of(tmp_path, seen, 2) is not None
    for rows, columns in [(3, 3), (2, 2), (2, 4)]:
        assert embed_sheet(tmp_path / "sheet.png", rows, columns, tmp_path / "image.png") is None
    (tmp_path / "sheet.png").write_bytes((tmp_path / "sheet.png").read_bytes()[:60])
    assert embed_sheet(tmp_path / "sheet.png", 2, 3, tmp_path / "image.png") is None
    assert embed_sheet(tmp_path / "nothing.png", 2, 3, tmp_path / "image.png") is None


def test_answers_lie_at_their_step_and_height():
    answers = (Answer(6, "clarity", 0.25), Answer(9, "clarity", 1.0), Answer(9, "potential", 0.5))
    found = trajectories(record(candidate(0, None, answers, cut_at=9)), Path("image.png"))
    assert found is not None and found.questions == ("clarity", "potential") and found.steps == (6, 9)
    clarity, potential = found.trajectories
    assert clarity.points == ((33.33, 0.75 * CHART_HEIGHT), (50.0, 0.0))
    assert potential.points == ((50.0, CHART_HEIGHT / 2),)
    assert clarity.cut is None and potential.cut == (50.0, CHART_HEIGHT / 2)
    assert [cell.words for cell in found.rows[0].cells] == [("clarity 0.25",), ("clarity 1.00", "potential 0.50")]


def test_a_question_without_an_answer_leaves_a_gap_and_says_so():
    answers = (Answer(6, "outcome", None), Answer(9, "outcome", 0.5))
    found = trajectories(record(candidate(0, 0.5, answers), candidate(1, None, answers[:1])), Path("image.png"))
    assert found is not None and [len(trajectory.points) for trajectory in found.trajectories] == [1]
    assert found.rows[0].cells[0].words == ("outcome not judged",)


def test_a_correction_goes_on_from_what_it_corrects():
    first = candidate(0, 0.3, (Answer(18, "outcome", 0.3),), reason="expected red circle>=1, found 0 red; and 1 blue")
    second = candidate(1, 0.8, (Answer(22, "outcome", 0.8),), parent=0)
    other = candidate(2, 0.2, (Answer(18, "outcome", 0.2),))
    found = trajectories(record(first, second, other, chosen=1), Path("image.png"))
    assert found is not None
    assert [(trajectory.candidate, trajectory.is_chosen) for trajectory in found.trajectories] == [
        (2, False),
        (0, True),
        (1, True),
    ]
    assert found.trajectories[2].origin == found.trajectories[1].points[-1]
    assert found.rows[0].notes == ("chosen", "from candidate 0")
    assert found.remarks == (
        "candidate 0: “expected red circle>=1, found 0 red; and 1 blue”",
        "candidate 1: from candidate 0, P(yes) 0.30 → 0.80",
    )


def test_candidates_that_descend_from_each_other_in_a_circle_do_not_hang():
    answers = (Answer(3, "outcome", 0.5), Answer(6, "outcome", 0.5))
    found = trajectories(
        record(candidate(0, 0.5, answers, parent=1), candidate(1, 0.5, answers, parent=0)), Path("i.png")
    )
    assert found is not None and all(trajectory.is_chosen for trajectory in found.trajectories)


def test_many_candidates_are_shown_as_far_as_there_is_room_the_chosen_one_first():
    answers = (Answer(9, "outcome", 0.5), Answer(18, "outcome", 0.5))
    many = [candidate(i, 0.5, answers) for i in range(MAX_ROWS + 6)]
    found = trajectories(record(*many, chosen=MAX_ROWS + 5), Path("image.png"))
    assert found is not None and len(found.rows) == MAX_ROWS and found.num_hidden == 6
    assert [row.index for row in found.rows[:3]] == [MAX_ROWS + 5, 0, 1]
    assert len(found.trajectories) == MAX_ROWS + 6


def test_one_step_makes_no_chart_and_without_pictures_nothing(tmp_path):
    answers = (Answer(18, "outcome", 0.5),)
    assert trajectories(record(candidate(0, 0.5, answers)), Path("image.png")) is None
    found = trajectories(record(candidate(0, 0.5, answers), previews=Path("sheet.png")), Path("image.png"))
    assert found is not None and found.trajectories == () and found.rows[0].cells[0].words == ("outcome 0.50",)


def test_rows_without_ways_show_none(tmp_path):
    assert trajectories(record(candidate(0, 0.5)), Path("image.png")) is None
    text = page(tmp_path, replace(SEARCHED, searched=False))
    assert "P(yes) by step" not in text.text and text.unbalanced == []


def test_the_page_shows_what_was_seen_said_cut_and_corrected(tmp_path):
    found = page(tmp_path)
    assert found.unbalanced == [] and found.open == []
    for words in ("P(yes) by step", "cut at step 6", "chosen from candidate", "step 13", "cut here"):
        assert words in found.text
    assert "& <b>nothing</b> red”" in found.text and found.all("b") != []
    ids = [attributes["id"] for _, attributes in found.tags if "id" in attributes]
    assert len(ids) == len(set(ids)) and sum((name or "").endswith("-sheet") for name in ids) == 2
    uses = [use["href"] for use in found.all("use")]
    assert {(href or "").removeprefix("#") for href in uses} <= set(ids)
    crops = [svg for svg in found.all("svg") if svg.get("class") == "seen"]
    assert len(crops) == 2 * (4 * 2 + 2 + 1)  # two close-ups: all at steps 3 and 6, half at 9, the correction at 13


def test_a_page_without_the_pictures_still_says_what_was_said(tmp_path):
    assert "potential 0." in page(tmp_path / "none", replace(SEARCHED, previews=False)).text
    run = write_runs(tmp_path / "lost", "a", SEARCHED)
    for path in (tmp_path / "lost" / "a" / "paths").rglob("*.png"):
        path.write_bytes(b"")
    found = page_of(write_report([run], num_closeups=2))
    assert "potential 0." in found.text and [svg for svg in found.all("svg") if svg.get("class") == "seen"] == []


def test_the_page_of_a_searched_run_is_light(tmp_path):
    run = write_runs(tmp_path, "a", replace(SEARCHED, num_candidates=20, prompts_per_task=10))
    assert write_report([run]).stat().st_size < 500_000


def test_expenses_are_means_of_images_and_of_tasks(tmp_path):
    out = write_report([write_runs(tmp_path, "a", SEARCHED)]).parent
    steps, calls = 2 * 6 + 2 * NUM_STEPS + 5.5, 4 * 2 + 2 + 1
    relative = (1e6 * steps + 3e5 * calls) / (1e6 * NUM_STEPS)
    words = f"{steps:.3g} steps, {calls} judge calls, {relative:.3g}× operations"
    assert words in page_of(out / "index.html").text
    scores = json.loads((out / "table.json").read_text())["runs"][0]["scores"]
    assert all(score["cost"]["generator_steps"] == steps for score in scores)
    assert scores[-1]["cost"]["relative"] == pytest.approx(relative)
    lines = (out / "table.md").read_text().splitlines()
    assert lines[0] == "| task | A a-verdicts | A cost |"
    assert lines[2].endswith(f"| {words} |")


def test_an_expense_that_some_images_do_not_tell_is_not_made_up():
    told, untold = record(candidate(0, None)), record(candidate(0, None))
    told = replace(told, cost=GenerationCost(generator_steps=36, judge_calls=2, flops=4e6, flops_without_search=2e6))
    assert unit_of([None, untold, told]) == 2e6 and unit_of([untold]) is None
    assert expense([told, told], 2e6) == Expense(36, 2, 2.0) and expense([told], 1e6) == Expense(36, 2, 4.0)
    assert expense([told, untold], 2e6) is None and expense([told, None], 2e6) is None and expense([], 2e6) is None
    old = replace(told, cost=GenerationCost(generator_steps=18, judge_calls=1))
    assert expense([told, old], 2e6) == Expense(27, 1.5, None)
    assert mean([Expense(10, 1, 2.0), Expense(20, 3, None)]) == Expense(15, 2, None)
    assert mean([Expense(10, 1, 2.0), None]) is None
    assert Expense(18, 1, None).words == "18 steps, 1 judge call"
