"""What `generate` writes about a search: rows, the sheet of previews, what a unit took."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from genloop.config import load_config
from genloop.data.images import contact_sheet
from genloop.job import run_command
from genloop.ledger import read_rows
from genloop.records import unpack_tokens
from genloop.rewards import JUDGES
from jobs import generate

WORDS = ["tiny", "limit=3", "images_per_prompt=2", "sampling.steps=6", "previews=judged", "judge.kind=opinions"]
PARM = ["search.strategy=parm", "search.n=4", "search.options.at=[2,4]", "search.options.keep=[3,2]"]
SIDE, GAP, MASKED = 24, 2, 351


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(JUDGES, "opinions", "tests.worlds.judged_generate:OpinionsMaker")
        out = tmp_path_factory.mktemp("generate") / "run"
        assert run_command(generate, [*WORDS, *PARM, f"out={out}"]) == 0
    return out


@pytest.fixture(scope="module")
def rows(run: Path) -> list[dict[str, Any]]:
    return list(read_rows(run))


def test_a_row_tells_the_way_of_every_candidate(rows: list[dict[str, Any]]) -> None:
    assert len(rows) == 6
    for row in rows:
        ways = [(len(one["trace"]), one["cut_at"]) for one in row["candidates"]]
        assert sorted(ways, key=str) == [(1, 2), (2, 4), (3, None), (3, None)]
        for one in row["candidates"]:
            asked = [(2, "potential"), (4, "potential"), (6, "outcome")][: len(one["trace"])]
            assert [(step, question) for step, question, _ in one["trace"]] == asked
            assert one["p_yes"] == {question: p_yes for _, question, p_yes in one["trace"]}
            assert (MASKED in unpack_tokens(one["tokens"])) == (one["cut_at"] is not None)
            assert not {"parent", "reason"} & one.keys()
        best = row["candidates"][row["chosen"]]
        assert (best["tokens"], best["cut_at"], row["num_steps"]) == (row["tokens"], None, 6)
        assert unpack_tokens(row["revealed_at"]).max() == 5


def test_costs_are_those_of_the_ways(run: Path, rows: list[dict[str, Any]]) -> None:
    for row in rows:
        assert (row["cost"]["generator_steps"], row["cost"]["judge_calls"]) == (4 * 2 + 3 * 2 + 2 * 2, 4 + 3 + 2)
        assert row["cost"]["flops"] > 1e8
    (entry,) = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    assert entry["flops"] == sum(row["cost"]["flops"] for row in rows)
    assert (entry["unit"], entry["images"], entry["judge_calls"]) == ("00000", 6, 54) and entry["seconds"] > 0


def test_the_sheet_has_a_row_a_candidate_and_a_column_a_judged_step(run: Path, rows: list[dict[str, Any]]) -> None:
    for row in rows:
        assert row["previews"] == f"paths/{row['prompt_index']:05d}/{row['sample']:04d}.png"
        sheet = np.asarray(Image.open(run / row["previews"]))
        assert sheet.shape == (4 * (SIDE + GAP) - GAP, 3 * (SIDE + GAP) - GAP, 3)
        cells = [[cell(sheet, r, c) for c in range(3)] for r in range(4)]
        for shown, one in zip(cells, row["candidates"]):
            assert [bool((picture == 255).all()) for picture in shown] == [c >= len(one["trace"]) for c in range(3)]
        final = np.asarray(Image.open(run / row["image"]))
        assert (cells[row["chosen"]][2] == final).all()


def cell(sheet: np.ndarray, row: int, column: int) -> np.ndarray:
    top, left = row * (SIDE + GAP), column * (SIDE + GAP)
    return sheet[top : top + SIDE, left : left + SIDE]


def test_nobody_was_asked_so_there_is_no_sheet(tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert run_command(generate, ["tiny", "limit=1", "sampling.steps=3", "previews=judged", f"out={out}"]) == 0
    (first, *_) = read_rows(out)
    assert "previews" not in first and not (out / "paths").exists()
    assert first["candidates"][0]["trace"] == [] and first["candidates"][0]["cut_at"] is None
    assert (first["cost"]["generator_steps"], first["cost"]["judge_calls"]) == (3, 0)


def test_a_contact_sheet_leaves_places_empty() -> None:
    black = np.zeros((2, 3, 3), np.uint8)
    sheet = contact_sheet([[black, None], [None, black]], gap=1)
    assert sheet.shape == (5, 7, 3)
    assert (sheet[:2, :3] == 0).all() and (sheet[3:, 4:] == 0).all()
    assert (sheet == 0).all(2).sum() == 12


@pytest.mark.parametrize("preset", ["showo_256", "showo_256_orm", "showo_256_parm", "showo_512"])
def test_presets_of_published_weights_fill_a_gpu(preset: str) -> None:
    config = load_config(generate.Config, Path("configs/generate") / f"{preset}.yaml")
    assert config.unit_size >= 16 and config.unit_size * config.images_per_prompt >= config.slots
    assert config.generator.options.dtype == "bfloat16"
    assert config.judge.kind != "llava" or config.judge.options.dtype == "bfloat16"


def test_an_image_tokenizer_that_has_no_half_precision_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["tiny", f"out={tmp_path / 'run'}", "generator.options.tokenizer_dtype=bfloat16"]
    assert run_command(generate, words) == 2
    assert capsys.readouterr().err.startswith("genloop: generator.options.tokenizer_dtype: ")
    assert not (tmp_path / "run").exists()
