"""Jobs as Python functions: the bytes of the commands, errors before any work, no torch until they are asked for."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import genloop
from genloop.api.calls import DrawnRun
from genloop.config import ConfigError
from genloop.job import run_command
from genloop.records import Prompt
from jobs import generate
from tests.runs import ROOT, contents

METADATA = ROOT / "configs/prompts/shapes_tiny/evaluation_metadata.jsonl"
OBJECTS = [json.loads(line) for line in METADATA.read_text().splitlines()[:2]]
FEW = {"sampling": {"steps": 4}, "images_per_prompt": 1}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> DrawnRun:
    return genloop.generate(OBJECTS, "tiny", out=tmp_path_factory.mktemp("api") / "run", **FEW)


def test_images_are_those_of_the_command(drawn: DrawnRun, tmp_path: Path) -> None:
    words = [f"prompts={METADATA}", "metadata=null", "limit=2", "sampling.steps=4", "images_per_prompt=1"]
    assert run_command(generate, ["tiny", *words, f"out={tmp_path / 'run'}"]) == 0
    assert contents(drawn.run) == contents(tmp_path / "run") != {}
    assert [image.size for image in drawn.images()] == [(24, 24)] * 2 and len(drawn.rows) == 2


def test_the_same_call_goes_on_and_another_on_its_folder_is_refused(drawn: DrawnRun) -> None:
    before = sorted(drawn.run.rglob("*.jsonl"))
    assert genloop.generate(OBJECTS, "tiny", out=drawn.run, **FEW).rows == drawn.rows
    with pytest.raises(ValueError, match=r"seed=0"):
        genloop.generate(OBJECTS, "tiny", out=drawn.run, seed=1, **FEW)
    assert sorted(drawn.run.rglob("*.jsonl")) == before


def test_images_are_evaluated_and_the_table_is_not_printed(drawn: DrawnRun, capsys) -> None:
    found = genloop.evaluate(drawn, "tiny", expect={"on_missing": "report"})
    assert [row.image for row in found.rows] == [row.image.removeprefix("images/") for row in drawn.rows]
    assert found.summary["num_images"] == 2 and "single_object" in found.table
    assert capsys.readouterr().out == ""


def test_a_judge_is_loaded_by_its_name_and_options(drawn: DrawnRun) -> None:
    judge = genloop.load_judge("llava", checkpoint="shapes/judge", device="cpu")
    prompts = [Prompt(i, row.prompt) for i, row in enumerate(drawn.rows)]
    p_yes = judge.p_yes("outcome", prompts, torch.zeros(2, 3, 24, 24))
    assert p_yes.shape == (2,) and bool(((p_yes >= 0) & (p_yes <= 1)).all())


@pytest.mark.parametrize(
    ("call", "key"),
    [
        (lambda out: genloop.generate("a star", "tiny", out=out, serach={"n": 2}), "serach"),
        (lambda out: genloop.generate("a star", "tiny", out=out, device="cuda"), "device"),
        (lambda out: genloop.generate([], "tiny", out=out), "prompts"),
        (lambda out: genloop.generate(["a star", "two\nlines"], "tiny", out=out), "prompts"),
        (lambda out: genloop.evaluate(out / "nowhere", "tiny", out=out), "nowhere"),
        (lambda out: genloop.load_judge("lava"), "llava"),
    ],
)
def test_bad_input_is_an_error_that_names_the_key_before_any_work(call, key: str, tmp_path: Path) -> None:
    with pytest.raises((ConfigError, ValueError, FileNotFoundError), match=key):
        call(tmp_path / "run")
    assert not (tmp_path / "run/run.json").exists()


def test_genloop_is_imported_without_torch_and_knows_its_calls() -> None:
    code = "import sys, genloop; print('torch' in sys.modules, 'generate' in dir(genloop), genloop.generate.__module__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True", "genloop.api.calls"]
