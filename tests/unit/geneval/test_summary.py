"""The summary: every number with n and an interval, nothing silently left out."""

import json

import pytest

from geneval.summary import format_reference, format_table, reference_line, summarize
from genloop.runs.rows import EvaluatedRow
from genloop.stats.intervals import clustered_wilson


def row(tag="colors", prompt="a", correct=True, sample=0, **changes):
    metadata = {"tag": tag, "include": [], "prompt": prompt}
    image = f"{prompt}/samples/{sample:04d}.png"
    base = {"prompt_index": 0, "sample": sample, "tag": tag, "prompt": prompt, "correct": correct, "reason": ""}
    return EvaluatedRow(**{**base, "image": image, "details": {}, "metadata": metadata, **changes})


ROWS = [
    row("counting", "a", True),
    row("counting", "a", False, sample=1),
    row("counting", "b", False),
    row("counting", "b", False, sample=1),
    row("single_object", "c", True),
]


def test_tasks_come_in_genevals_order_with_images_and_prompts():
    summary = summarize(ROWS)
    assert [(t.tag, t.num_correct, t.num_images, t.num_prompts) for t in summary.tasks] == [
        ("single_object", 1, 1, 1),
        ("counting", 1, 4, 2),
    ]
    assert (summary.num_images, summary.num_correct, summary.num_prompts, summary.num_prompts_solved) == (5, 2, 3, 2)
    overall = summary.overall.interval
    assert overall.estimate == pytest.approx((1 + 0.25) / 2)
    assert 0 <= overall.low < overall.estimate < overall.high <= 1


def test_the_table_names_what_is_missing_uneven_or_unreadable():
    text = format_table(summarize(ROWS, unreadable=["b/samples/0000.png"]))
    assert "no images of two_object, colors, position, color_attr" in text
    assert "between 1 and 2 images" in text
    assert "1 image could not be read and counted as wrong: b/samples/0000.png" in text
    full = format_table(summarize([row(tag, tag) for tag in ("single_object", "two_object", "counting")] + ROWS[:0]))
    assert "could not be read" not in full
    assert "between" not in full


def test_the_summary_is_plain_json():
    plain = summarize(ROWS).to_json()
    assert json.loads(json.dumps(plain))["images_per_prompt"] == [1, 2]
    assert set(plain["overall"]) == set(plain["tasks"][0]["accuracy"]) == {"estimate", "low", "high", "method"}
    assert (plain["overall"]["method"], plain["tasks"][0]["accuracy"]["method"]) == ("combined", "wilson")
    assert plain["tasks"][1]["tag"] == "counting"


def test_the_reference_lists_tasks_as_they_first_appear():
    lines = format_reference(ROWS).splitlines()
    assert lines[9:11] == ["counting         = 25.00% (1 / 4)", "single_object    = 100.00% (1 / 1)"]
    assert lines[-1] == "Overall score (avg. over tasks): 0.62500"


def test_a_reference_line_escapes_as_pandas_does():
    line = reference_line(row(prompt="café", reason="x\ny"), "out/")
    assert line == (
        b'{"filename":"out\\/caf\\u00e9\\/samples\\/0000.png","tag":"colors","prompt":"caf\\u00e9","correct":true,'
        b'"reason":"x\\ny","metadata":"{\\"tag\\": \\"colors\\", \\"include\\": [], \\"prompt\\": \\"caf\\\\u00e9\\"}",'
        b'"details":"{}"}\n'
    )


def test_a_reference_line_leaves_a_delete_as_pandas_does_but_not_in_nested_json():
    line = reference_line(row(prompt="a\x7f\\u007f\u2028"), "out")
    assert b'"prompt":"a\x7f\\\\u007f\\u2028"' in line  # as pandas 3.1.1 writes it
    assert b"a\\\\u007f\\\\\\\\u007f\\\\u2028" in line.partition(b'"metadata":')[2]


def test_nothing_evaluated_is_an_error():
    with pytest.raises(ValueError, match="no rows"):
        summarize([])


def test_decisions_that_a_rounding_could_turn_are_counted_where_all_rows_tell():
    distances = [0.004, 0.005, 0.006, None]
    rows = [row("colors", f"p{i}", sample=i, distance=distance) for i, distance in enumerate(distances)]
    told = summarize(rows)
    assert told.to_json()["near_threshold"] == {
        "within": 0.005,
        "images": 2,
        "share": clustered_wilson([1.0, 1.0, 0.0, 0.0], list("abcd"))._asdict(),
    }
    assert "decisions within 0.005 of a threshold: 2 images, 50.0 % (15.0 to 85.0)\n" in format_table(told)
    untold = summarize([*rows, row("colors", "p4")])
    assert untold.to_json()["near_threshold"] is None and "threshold" not in format_table(untold)


def test_the_table_marks_how_each_interval_was_found():
    many = [row("colors", f"p{i}", i % 3 > 0 or s == 0, sample=s) for i in range(50) for s in range(2)]
    lines = format_table(summarize(many + ROWS)).splitlines()
    shown = {line.split()[0]: line.split("%")[3].split()[0] for line in lines[1:5]}
    assert {task: mark for task, mark in shown.items() if mark in ("w", "c")} == {
        "single_object": "w",
        "counting": "w",
        "overall": "c",
    }
    assert len({len(line) for line in lines[:5]}) == 1
    assert lines[6] == (
        "95 % intervals: bootstrap over prompts; w: Wilson's at the effective sample size; "
        "c: combined from those of the tasks"
    )
    assert "95 % intervals: bootstrap over prompts\n" in format_table(summarize(many))


def test_wilsons_interval_is_there_for_those_who_ask():
    rows = [row("colors", f"p{i}", i % 3 > 0 or s == 0, sample=s) for i in range(50) for s in range(4)]
    wilson, bootstrap = summarize(rows, intervals="wilson"), summarize(rows)
    assert (wilson.tasks[0].accuracy.method, bootstrap.tasks[0].accuracy.method) == ("wilson", "bootstrap")
    ours, theirs = bootstrap.tasks[0].accuracy.interval, wilson.tasks[0].accuracy.interval
    assert ours.estimate == pytest.approx(theirs.estimate) and ours != theirs
