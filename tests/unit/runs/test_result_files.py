"""Result files as GenEval's script and other projects' copies of it write them go through every job that names them."""

import json

import pytest

from genloop.job import run_command
from genloop.runs.evaluations import read_evaluation
from jobs import agreement, compare
from tests.goldens.roots import SAMPLES
from tests.runs import refusal
from tests.worlds.annotations import write_csv

RESULTS = SAMPLES / "geneval" / "results"
PLACES = {
    "geneval": [(0, 0), (0, 1), (1, 0), (2, 0), (2, 1)],  # the file system's order, pandas' escapes
    "bagel": [(0, 0), (0, 3), (2, 0)],  # five digits, put together by rank, rewritten prompts
    "showo": [(0, 0), (0, 1)],  # prompts with a line break
    "flow_grpo": [(0, 0), (1, 0), (2, 0), (3, 0)],  # a folder for each image, keys of a reward
    "final": [(0, 0), (10, 0)],  # one final.png a prompt, an empty line
}
ROW = json.loads((RESULTS / "final.jsonl").read_text().splitlines()[0])


@pytest.mark.parametrize("form", PLACES)
def test_result_files_of_every_form_are_read_compared_and_held_against_people(form, tmp_path):
    path = RESULTS / f"{form}.jsonl"
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
    found = read_evaluation(path).images
    assert [(image.prompt_index, image.sample) for image in found] == PLACES[form]
    assert sorted(image.text for image in found) == sorted(line["prompt"] for line in lines)
    assert sum(image.correct for image in found) == sum(line["correct"] for line in lines)
    few = ["num_resamples=100"]
    assert run_command(compare, [f"a={path}", f"b={path}", f"out={tmp_path / 'c'}", "allow=card", *few]) == 0
    votes = [{"prompt_id": p, "image_id": s, "n_loose": 5, "n_strict": 4, "n_annotators": 5} for p, s in PLACES[form]]
    people = write_csv(tmp_path / "votes.csv", votes)
    assert run_command(agreement, [f"runs={path}", f"annotations={people}", f"out={tmp_path / 'a'}", *few]) == 0
    told = json.loads((tmp_path / "a" / "agreement.json").read_text())
    assert told["tasks"][-1]["images"] == len(lines)


@pytest.mark.parametrize(
    "line",
    [
        json.dumps(ROW | {"filename": "outputs/00000_00001.png"}),
        json.dumps(ROW | {"filename": 5}),
        json.dumps(ROW | {"details": "{"}),
        "[" * 100_000,
        '{"filename": ' + "9" * 5000 + "}",
    ],
    ids=["no folder", "no text", "torn details", "deep", "a long number"],
)
def test_a_row_of_another_form_is_refused_by_its_line(line, tmp_path, capsys):
    path = tmp_path / "results.jsonl"
    path.write_text(json.dumps(ROW) + "\n" + line + "\n")
    told = refusal(compare, [f"a={path}", f"b={path}", f"out={tmp_path / 'c'}"], tmp_path, capsys)
    assert "results.jsonl:2: not a row" in told and "filename" in told
