"""Guided generation, and refined prompts as a file: never below the start, the same bytes for any slots, resumable."""

import json
from pathlib import Path

import pytest

from genloop.job import run_command
from genloop.ledger import read_rows
from jobs import generate, refine_prompts, verify
from tests.runs import contents, refusal, rows_text

PRESETS = {"refine_tiny": ["sampling.steps=6", "limit=3"], "refine_diffusion_tiny": ["limit=3"]}


@pytest.fixture(scope="module", params=PRESETS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    out = tmp_path_factory.mktemp("refined") / "run"
    assert run_command(generate, [request.param, *PRESETS[request.param], f"out={out}"]) == 0
    return request.param, out


def test_no_image_ends_below_its_start(made: tuple[str, Path], tmp_path: Path) -> None:
    drawn = 0
    for row in read_rows(made[1]):
        scores = [one["p_yes"]["outcome"] for one in row["candidates"]]
        starts = [one["candidate"] for one in row["candidates"] if "redrawn" not in one]
        best = start = max(starts, key=lambda one: (scores[one], -one))
        for child in row["candidates"][len(starts) :]:
            assert child["parent"] == best and row["candidates"][best]["critique"]["diagnosis"]
            assert child["redrawn"]["prompt"].startswith(row["prompt"])
            best = child["candidate"] if scores[child["candidate"]] > scores[best] else best
            drawn += 1
        assert row["chosen"] == best and scores[best] >= scores[start] == max(scores[one] for one in starts)
    assert drawn
    assert run_command(verify, [f"run={made[1]}", f"out={tmp_path / 'checked'}"]) == 0


def test_slots_change_nothing(made: tuple[str, Path], tmp_path: Path) -> None:
    preset, out = made
    assert run_command(generate, [preset, *PRESETS[preset], "slots=1", f"out={tmp_path / 'narrow'}"]) == 0
    assert contents(tmp_path / "narrow") == contents(out)


def test_refined_prompts_are_a_prompt_file_that_generate_reads(made: tuple[str, Path], tmp_path: Path) -> None:
    preset, source = made
    words = ["tiny", f"source={source}", f"out={tmp_path / 'refined'}", "unit_size=2"]
    assert run_command(refine_prompts, words) == 0
    before = rows_text(tmp_path / "refined")
    assert run_command(refine_prompts, words) == 0 and rows_text(tmp_path / "refined") == before
    file = tmp_path / "refined" / "evaluation_metadata.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    rows = list(read_rows(tmp_path / "refined"))
    assert [line["detailed_caption"] for line in lines] == [row["rewritten_prompt"] for row in rows]
    assert any(row["rewritten_prompt"] != row["prompt"] for row in rows) and all(
        row["critique"]["features"] for row in rows
    )
    again = [
        preset,
        *PRESETS[preset],
        "search.strategy=none",
        "search.n=1",
        f"prompts={file}",
        "metadata=",
        "text=detailed_caption",
    ]
    assert run_command(generate, [*again, f"out={tmp_path / 'again'}"]) == 0
    drawn = list(read_rows(tmp_path / "again"))
    assert [row["rewritten_prompt"] for row in drawn] == [row["rewritten_prompt"] for row in rows]


BAD = {
    "no critic of that name": ([generate, "refine_tiny", "judge.options.critic=rule"], "critic"),
    "no critiques": ([generate, "refine_tiny", "judge={kind: shapes_oracle}"], "refine"),
    "no checkpoint": ([generate, "refine_tiny", "judge.options.critic={kind: qwen}"], "checkpoint"),
    "starts itself": ([generate, "refine_tiny", "search.options.start=refine"], "search.options.start"),
    "no strength": ([generate, "refine_tiny", "search.options.strength=0"], "search.options.strength"),
    "no run": ([refine_prompts, "tiny", "source=configs"], "source"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_in_one_line(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (job, *words), named = BAD[name]
    assert named in refusal(job, [*words, f"out={tmp_path / 'run'}"], tmp_path, capsys)
