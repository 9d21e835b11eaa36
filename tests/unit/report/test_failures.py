"""The page about failures: every reason has a kind, tables count what rows say, boxes lie where objects were."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from geneval.reasons import in_words
from geneval.verdict import VerdictOptions, judge_objects
from genloop.data.masks import encode_mask
from genloop.records import Clause, Detection, Prompt, Verdict
from genloop.report import rendering, write_report
from genloop.report.failures.objects import shots
from genloop.report.failures.reasons import (
    COLOR,
    MISSING,
    NO_TARGET,
    OTHER,
    RELATION,
    TOO_FEW,
    TOO_MANY,
    UNREADABLE,
    failures,
)
from genloop.report.failures.tables import UNSEEN, by_kind, classes, colors, relations, worst
from genloop.report.failures.write import write_failures
from genloop.report.runs import ReportedRun, read_runs
from genloop.runs.rows import EvaluatedRow
from tests.worlds.report_runs import Sketch, complete_run, start_run, write_runs

RED = {"class": "dog", "count": 1, "color": "red"}
ABOVE = {"class": "tie", "count": 1, "position": ["above", 0]}
BOX = [4.0, 6.0, 14.0, 26.0, 0.75]


def row(index, sample, tag, include, reason="", **more):
    text = f"a photo of {tag} {index}"
    return {
        "prompt_index": index,
        "sample": sample,
        "prompt": text,
        "tag": tag,
        "image": f"{index:05d}/samples/{sample:04d}.png",
        "correct": not reason,
        "reason": reason,
        "details": {},
        "metadata": {"tag": tag, "include": include, "prompt": text},
    } | more


ROWS = [
    row(0, 0, "colors", [RED], colors=[{"clause": 0, "named": ["red"], "margins": [0.5]}], details={"dog": [BOX]}),
    row(
        0,
        1,
        "colors",
        [RED],
        "expected red dog>=1, found 0 red; and 1 blue",
        colors=[{"clause": 0, "named": ["blue"], "margins": [0.25]}],
        details={"cat": [[0.0, 0.0, 9.0, 9.0, 0.5]], "dog": [BOX]},
        areas={"cat": [None], "dog": [100]},
    ),
    row(1, 0, "position", [{"class": "dog", "count": 1}, ABOVE], details={"dog": [BOX], "tie": [BOX]}),
    row(
        1,
        1,
        "position",
        [{"class": "dog", "count": 1}, ABOVE],
        "expected tie above target, found left of and below target",
        details={"dog": [BOX], "tie": [BOX]},
    ),
    row(
        2,
        0,
        "position",
        [{"class": "dog", "count": 1}, ABOVE],
        "expected dog>=1, found 0\nno target for tie to be above",
    ),
    row(2, 1, "position", [{"class": "dog", "count": 1}, ABOVE], "unreadable: not a PNG, JPEG or WebP image"),
]


@pytest.fixture
def run(tmp_path):
    images = tmp_path / "images"
    for one in ROWS:
        place = images / one["image"]
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), (90, 90, 90)).save(place)
    start_run(tmp_path / "run", "evaluate", {"images": str(images)})
    complete_run(tmp_path / "run", ROWS, 4)
    return read_runs([tmp_path / "run"])[0]


@pytest.mark.parametrize(
    ("found", "kinds"),
    [
        ({}, [MISSING, MISSING]),
        ({"dog": 1, "tie": 1}, [TOO_FEW, NO_TARGET]),
        ({"dog": 3}, [MISSING]),
        ({"dog": 5, "tie": 1}, [RELATION, TOO_MANY]),
        ({"dog": 3, "tie": 1}, [RELATION]),
    ],
)
def test_the_reasons_of_real_verdicts_have_a_kind(found, kinds):
    prompt = Prompt(0, "x", "own", (Clause("dog", 2), Clause("tie", 1, position=("above", 0))), (Clause("dog", 4),))
    objects = {name: [Detection(name, 0.9, (0.0, 0.0, 9.0, 9.0))] * count for name, count in found.items()}
    reason = judge_objects(prompt, objects, {}, VerdictOptions()).reason
    assert [failure.kind for failure in failures(reason)] == kinds


def test_colours_relations_and_strange_reasons_have_a_kind():
    assert failures("") == []
    (color,) = failures("expected red traffic light>=1, found 0 red; and 1 blue")
    assert (color.kind, color.class_name) == (COLOR, "traffic light")
    (relation,) = failures("expected tie left of target, found right of and below target")
    assert (relation.kind, relation.relation, relation.found) == (RELATION, "left of", ("right of", "below"))
    assert failures("expected tie left of target, found  target")[0].found == ()
    assert [one.kind for one in failures("unreadable: x\nsomething else")] == [UNREADABLE, OTHER]


MANY = 100_000


@pytest.mark.parametrize(
    "line",
    [
        "expected " + ">=1, found 0 x" * MANY,
        "expected red " + ">=1, found 0 " * MANY,
        "expected " + "<1, found 0 x" * MANY,
        "expected " + "a above target, found b " * MANY,
        "expected " + " above target, found" * MANY,
        "no target for " + " to be above" * MANY + "x",
        f"expected a>={'1' * MANY}, found 0",
    ],
    ids=lambda line: line[:24],
)
def test_a_reason_of_a_megabyte_is_read_like_any_other(line):
    """In linear time: what is quadratic takes hours here."""
    assert [one.kind for one in failures(line)] == [OTHER]
    assert in_words(Prompt(0, "x", "own", (Clause("dog", 1),)), Verdict(False, line)) == ""


def test_kinds_are_counted_by_task_with_intervals(run):
    table = by_kind(run)
    assert table.columns == (MISSING, COLOR, RELATION, NO_TARGET, UNREADABLE)
    (_, total, cells) = table.rows[1]
    assert (table.rows[1][0], total) == ("position", 4)
    assert [cell.count for cell in cells] == [1, 0, 1, 1, 1]
    assert all(cell.interval.low <= cell.heat <= cell.interval.high for cell in cells)


def test_colours_are_counted_object_by_object(run):
    table = colors(run)
    assert table.columns == ("red", "blue")
    assert [(name, total, [cell.count for cell in cells]) for name, total, cells in table.rows] == [("red", 2, [1, 1])]


def test_relations_are_counted_image_by_image(run):
    table = relations(run)
    (name, total, cells) = table.rows[0]
    counts = dict(zip(table.columns, [cell.count for cell in cells]))
    assert (name, total) == ("above", 3)  # the file that does not decode shows no relation
    assert counts == {"left of": 1, "above": 1, "below": 1, UNSEEN: 1}


def test_missing_classes_and_the_worst_prompts(run):
    assert [(name, cell.count, cell.total) for name, cell in classes(run)] == [("dog", 1, 6)]
    found, hopeless = worst(run, 10)
    assert ([fall.prompt for fall in found], hopeless) == (
        ["a photo of position 2", "a photo of colors 0", "a photo of position 1"],
        1,
    )
    assert found[0].right == 0 and ("expected dog>=1, found 0", 1) in found[0].reasons
    assert [fall.prompt for fall in worst(run, 1)[0]] == ["a photo of position 2"]


def test_boxes_colours_and_areas_are_those_of_the_rows(run):
    shot = next(shot for shot in shots(run, 10) if shot.outcome == COLOR)
    assert (shot.width, shot.height) == (40, 30)
    dog, cat = shot.objects
    assert (dog.number, dog.x, dog.y, dog.width, dog.height) == (1, 4.0, 6.0, 10.0, 20.0)
    assert (dog.color, dog.margin, dog.area) == ("blue", 0.25, pytest.approx(100 / 1200))
    assert (cat.number, cat.color, cat.area) == (None, "", None)


def test_images_on_which_nothing_was_found_are_shown_and_the_best_object_lies_on_top(tmp_path, run):
    bare = next(image for image in run.images if image.row.details == {} and image.path.is_file())
    assert next(shot for shot in shots(run, 10) if shot.image is bare).objects == ()
    page = write_failures(run, tmp_path).read_text()
    assert "<small>nothing was found</small>" in page
    numbers = re.findall(
        r'<rect class="flag".*?>(\d)</text>', page.partition("position 1: sample 0 with what was found")[2]
    )
    assert numbers[:2] == ["2", "1"]  # what is drawn last lies on top


def test_masks_are_drawn_where_rows_have_them(tmp_path, run):
    assert not any(seen.outline for shot in shots(run, 10) for seen in shot.objects)
    assert 'class="mask' not in write_failures(run, tmp_path).read_text()
    mask = np.zeros((30, 40), bool)
    mask[6:26, 4:14] = True
    shown = next(shot.image for shot in shots(run, 10) if shot.outcome == COLOR)
    more = {"size": (40, 30), "masks": {"dog": [encode_mask(mask)]}}
    masked = replace(shown, row=shown.row.model_copy(update=more))
    run = replace(run, images=tuple(masked if image is shown else image for image in run.images))
    dog, cat = next(shot for shot in shots(run, 10) if shot.image is masked).objects
    assert (dog.outline, cat.outline) == ("M4 6H14V26H4V6z", "")
    page = write_failures(run, tmp_path).read_text()
    assert page.count('<path class="mask run0" d="M4 6H14V26H4V6z"/>') == 1 == page.count('class="mask')


def test_the_page_counts_decisions_near_a_threshold_where_all_rows_tell(tmp_path, run):
    def at(distances: Sequence[float]) -> ReportedRun:
        changed = [{**image.row.to_json(), "distance": d} for image, d in zip(run.images, distances)]
        rows = [image.row.to_json() for image in run.images[len(distances) :]]
        parsed = [EvaluatedRow.from_json(json.dumps(row).encode()) for row in [*changed, *rows]]
        return replace(run, images=tuple(replace(i, row=row) for i, row in zip(run.images, parsed)))

    distances = [0.005, *(0.5 for _ in run.images[1:])]
    told = "Decisions within 0.005 of a threshold, which a rounding could turn: 1 image, "
    assert told in write_failures(at(distances), tmp_path).read_text()
    assert "of a threshold" not in write_failures(at(distances[:-1]), tmp_path).read_text()


def test_boxes_are_drawn_on_upright_images(tmp_path, run):
    path = run.images[0].path
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    Image.new("RGB", (40, 30)).save(path, exif=exif)
    shot = next(shot for shot in shots(run, 10) if shot.image.path == path)
    assert (shot.width, shot.height) == (30, 40)


def test_the_report_links_a_page_for_each_run_that_needs_nothing_else(tmp_path: Path):
    runs = [write_runs(tmp_path, name, Sketch(seed=i, samples=2)) for i, name in enumerate("ab")]
    page = write_report(runs, tmp_path / "out")
    text = page.read_text()
    for name in ("failures-a.html", "failures-b.html"):
        assert f'href="{name}"' in text
        own = (tmp_path / "out" / name).read_text()
        sources = re.findall(r'(?:src|href)="([^"#]+)"', own)
        assert all(source.startswith("data:") or source == "index.html" for source in sources)
        assert "<script" not in own and "svg" in own
    first = (tmp_path / "out" / "failures-a.html").read_bytes()
    write_report(runs, tmp_path / "out")
    assert (tmp_path / "out" / "failures-a.html").read_bytes() == first


def test_a_run_without_failures_and_rows_without_evidence_are_shown(tmp_path: Path):
    run = write_runs(tmp_path, "a", Sketch(accuracy=1.1))
    for file in (run / "rows").iterdir():
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        file.write_text("".join(json.dumps({k: v for k, v in one.items() if k != "details"}) + "\n" for one in rows))
    write_report([run], tmp_path / "out")
    assert "No image is wrong." in (tmp_path / "out" / "failures-a.html").read_text()


def test_a_colour_that_is_none_leaves_the_style_of_the_page_alone(tmp_path):
    evil = "red;position:fixed;inset:0"
    colors = [{"clause": 0, "named": [evil], "margins": [0.25]}]
    asked = {**RED, "color": evil}
    rows = [row(0, 0, "colors", [asked], "wrong", colors=colors, details={"dog": [BOX]}, areas={"dog": [100]})]
    place = tmp_path / "images" / rows[0]["image"]
    place.parent.mkdir(parents=True)
    Image.new("RGB", (40, 30)).save(place)
    start_run(tmp_path / "run", "evaluate", {"images": str(tmp_path / "images")})
    complete_run(tmp_path / "run", rows, 4)
    write_report([tmp_path / "run"], tmp_path / "report")
    pages = [page.read_text() for page in tmp_path.rglob("*.html")]
    assert len(pages) == 2 and any(evil in page for page in pages)
    styles = [style for page in pages for style in re.findall(r'style="([^"]*)"', page)]
    assert styles and not any("fixed" in style for style in styles)


def test_styles_take_numbers_and_swatches_alone():
    """Whatever else is put into a style may hold more than its value."""
    templates = Path(rendering.__file__).parent / "templates"
    styles = [style for file in templates.glob("*.j2") for style in re.findall(r'style="(.*?)"', file.read_text())]
    filled = [part.strip() for style in styles for part in re.findall(r"{{(.*?)}}", style)]
    safe = re.compile(r".*\| (swatch|length|round\([12]\))|row\.height|columns")
    assert filled and [part for part in filled if not safe.fullmatch(part)] == []
