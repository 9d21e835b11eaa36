"""What a trained judge's summary says: every question by step and task, and a calibration that helps."""

import json
from collections import Counter
from xml.etree import ElementTree

import numpy as np
import pytest

from genloop.records import HeldOutAnswer
from genloop.report.figures.reliability import reliability_svg
from genloop.stats.judges.summary import calibrate, format_judge, point_estimates, summarize_judge

SVG = "{http://www.w3.org/2000/svg}"


def answers(scale: float = 1.0, num_prompts: int = 30) -> list[HeldOutAnswer]:
    """A judge that knows something and is `scale` times too sure."""
    rng = np.random.default_rng(0)
    rows = []
    for prompt in range(num_prompts):
        level = rng.normal()
        for image in range(12):
            margin = level + 2 * rng.normal()
            label = float(rng.random() < 1 / (1 + np.exp(-margin)))
            question, step = (("outcome", "final"), ("potential", "6"), ("potential", "12"))[image % 3]
            tag = "counting" if prompt % 2 else "colors"
            rows.append(HeldOutAnswer(question, step, tag, f"prompt {prompt}", label, scale * margin))
    return rows


def test_every_question_has_its_numbers_by_step_and_by_task():
    rows = answers()
    found = summarize_judge(rows, 0)
    assert list(found["overall"]) == ["outcome", "potential"]
    assert list(found["by_step"]["potential"]) == ["6", "12"] and list(found["by_step"]["outcome"]) == ["final"]
    assert list(found["by_task"]["outcome"]) == ["colors", "counting"]
    assert found["overall"]["potential"]["n"] == 240
    assert sum(row["n"] for row in found["by_step"]["potential"].values()) == 240
    for row in (*found["overall"].values(), *found["by_task"]["potential"].values()):
        for name in ("accuracy", "auc", "auc_within", "ece"):
            estimate, low, high = row[name]
            assert low <= estimate <= high
    assert json.loads(json.dumps(found)) == found


def test_images_are_compared_within_a_prompt_and_a_step():
    rows = [
        HeldOutAnswer("potential", "6", "colors", "a", 1.0, 0.0),
        HeldOutAnswer("potential", "6", "colors", "a", 0.0, -1.0),
        HeldOutAnswer("potential", "9", "colors", "a", 1.0, 5.0),
        HeldOutAnswer("potential", "9", "colors", "a", 0.0, 4.0),
    ]
    assert summarize_judge(rows, 0)["overall"]["potential"]["auc_within"][0] == 1.0


@pytest.mark.parametrize("scale", [4.0, 0.2])
def test_calibration_mends_a_judge_that_is_too_sure_or_not_sure_enough(scale):
    found = calibrate(answers(scale, num_prompts=200), 0)
    assert found is not None
    assert found["a"] == pytest.approx(1 / scale, rel=0.35)
    assert found["ece_after"][0] < found["ece_before"][0] - 0.05
    assert found["fitted_on"] + found["measured_on"] == 200 * 12


def test_few_prompts_are_not_calibrated_and_none_at_all_are_no_error():
    assert calibrate(answers(num_prompts=3), 0) is None
    assert "calibration" in summarize_judge(answers(num_prompts=3), 0)
    assert summarize_judge([], 0)["overall"] == {}
    assert format_judge(summarize_judge([], 0)).startswith("# The judge")


def test_the_tables_show_every_row():
    text = format_judge(summarize_judge(answers(), 0))
    for part in ("| potential | 12 |", "| outcome | counting |", "| potential | 0.9 to 1.0 |", "ECE before"):
        assert part in text


def test_a_line_of_metrics_has_the_same_estimates():
    rows = answers()
    found, whole = point_estimates(rows, 0), summarize_judge(rows, 0)["overall"]
    assert set(found) == {f"{q}_{name}" for q in ("outcome", "potential") for name in ("accuracy", "auc", "auc_within")}
    for question, row in whole.items():
        assert all(found[f"{question}_{name}"] == row[name][0] for name in ("accuracy", "auc", "auc_within"))


def test_the_diagram_names_every_question_and_counts_every_bin():
    overall = summarize_judge(answers(3.0), 0)["overall"]
    svg = reliability_svg(overall)
    texts = [node.text or "" for node in ElementTree.fromstring(svg).iter(f"{SVG}text")]
    counts = Counter(f"{bar['n']:,}" for row in overall.values() for bar in row["reliability"])
    assert all(texts.count(count) >= number for count, number in counts.items())
    assert [text.partition(":")[0] for text in texts if "calibration error" in text] == ["outcome", "potential"]
    assert reliability_svg(overall) == svg and ElementTree.fromstring(reliability_svg({})).tag == f"{SVG}svg"
