"""Verdicts equal the reference's: correct, reasons, kept objects, colour questions, on every recorded case."""

import gzip
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from geneval.names import OBJECT_NAMES
from geneval.verdict import VerdictOptions, color_requests, details, judge_objects, keep
from genloop.data.prompts import parse_metadata
from genloop.records import Clause, Detection, Prompt
from tests.goldens.roots import golden_name, golden_paths

FILES = golden_paths("geneval/**/decisions*.jsonl.gz")


def cases(file: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def clause(row: Mapping[str, Any]) -> Clause:
    return Clause(row["class"], row["count"], row.get("color"), tuple(row["position"]) if "position" in row else None)


def prompt_of(metadata: Mapping[str, Any]) -> Prompt:
    """The prompt as it stands, also where our reader would refuse it."""
    include, exclude = (tuple(map(clause, metadata.get(key, ()))) for key in ("include", "exclude"))
    return Prompt(0, metadata["prompt"], metadata["tag"], include, exclude)


def replay(case: Mapping[str, Any]) -> tuple[dict[str, Any], list[list[Any]]]:
    """-> what was decided, in the form of the recording, and the colour questions."""
    detections, answers = [], {}
    for name, rows in case["dets"].items():
        for row, color in zip(rows, case["colors"][name], strict=True):
            detections.append(Detection(name, row[4], tuple(row[:4])))
            answers[id(detections[-1])] = color
    prompt, options = prompt_of(case["metadata"]), VerdictOptions(**case.get("options") or {})
    objects = keep(detections, prompt, options, OBJECT_NAMES)
    asked = color_requests(prompt, objects)
    calls = [[found[0].class_name, len(found)] for found in asked.values()]
    named = {clause: [answers[id(detection)] for detection in found] for clause, found in asked.items()}
    try:
        verdict = judge_objects(prompt, objects, named, options)
    except IndexError:
        return {"correct": None, "reason": None, "details": None, "error": "IndexError"}, calls
    found = {"correct": verdict.correct, "reason": verdict.reason, "details": details(objects), "error": None}
    return found, calls


def unordered(objects: Mapping[str, list[list[float]]]) -> dict[str, list[list[float]]]:
    return {name: sorted(rows) for name, rows in objects.items()}


@pytest.mark.parametrize("file", FILES, ids=golden_name)
def test_every_recorded_verdict_is_ours(file: Path) -> None:
    wrong, total = [], 0
    for case in cases(file):
        total += 1
        expected = case.get("expect_tie_high_index_first", case["expect"])
        found, calls = replay(case)
        same = all(found[key] == expected[key] for key in ("correct", "reason", "error"))
        if case["tie_sensitive"] == "details":  # the order of equal scores was left to an unstable sort
            same = same and unordered(found["details"]) == unordered(expected["details"])
        else:
            same = same and json.dumps(found["details"]) == json.dumps(expected["details"])
        if not case["tie_sensitive"]:
            same = same and calls == case["expect"]["color_calls"]
        if not same:
            wrong.append((case["id"], found, expected))
    assert total > 0
    assert wrong == []


@pytest.mark.parametrize("file", FILES, ids=golden_name)
def test_metadata_that_breaks_the_reference_is_refused_by_our_reader(file: Path) -> None:
    broken = [case["metadata"] for case in cases(file) if case["expect"]["error"]]
    for metadata in broken:
        with pytest.raises(ValueError):
            parse_metadata(metadata, 0, where="recorded")
    assert all("position" in json.dumps(metadata) for metadata in broken)
