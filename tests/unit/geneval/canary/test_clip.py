"""The canary with CLIP weights that know the ten colours: plausible, recorded, and what a record tells apart."""

import json
from pathlib import Path

import pytest
import torch

from geneval.canary.check import AS_RECORDED, PLAUSIBLE, CanaryFailed, observe_colors, run_canary
from geneval.canary.records import Part, write_record
from geneval.colors.clip import ClipColorMaker, ClipOptions
from geneval.settings import Evaluator
from geneval.verdict import VerdictOptions
from genloop.job import run_command
from genloop.models.clip.towers import load_clip_transformers
from genloop.shapes.detector import ShapesDetector
from jobs import evaluate
from tests.runs import refusal
from tests.worlds.tiny_clip import color_tensors, write_transformers_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.set_num_threads(1)
    plain = load_clip_transformers(write_transformers_folder(tmp_path / "plain"))
    return write_transformers_folder(tmp_path / "clip", tensors=color_tensors(plain))


def words(folder: Path, out: Path, **options: str) -> list[str]:
    given = {"checkpoint": str(folder), "backend": "transformers", "architecture": "null"} | options
    return [
        *("detector=shapes", "colors.kind=clip", "device=cpu", f"out={out}"),
        *(f"colors.options.{key}={value}" for key, value in given.items()),
    ]


def outcome(out: Path) -> str:
    return json.loads((out / "canary.json").read_text())["colors"]["outcome"]


def test_weights_that_know_the_colours_pass_and_are_recorded(folder, tmp_path, capsys):
    assert run_command(evaluate, [*words(folder, tmp_path / "a"), "canary=only"]) == 0
    assert outcome(tmp_path / "a") == PLAUSIBLE
    assert run_command(evaluate, [*words(folder, tmp_path / "b"), "canary=record"]) == 0
    assert f"noted in {folder}.canary.json" in capsys.readouterr().out
    assert run_command(evaluate, [*words(folder, tmp_path / "c"), "canary=only"]) == 0
    assert outcome(tmp_path / "c") == AS_RECORDED
    settings = json.loads((folder / "config.json").read_text())
    for side in ("vision_config", "text_config"):
        settings[side]["hidden_act"] = "gelu"
    (folder / "config.json").write_text(json.dumps(settings))
    assert "need 'quick_gelu'" in refusal(evaluate, [*words(folder, tmp_path / "d"), "canary=only"], tmp_path, capsys)


def test_untrained_weights_know_no_colours(tmp_path):
    classifier = ClipColorMaker.load(options(write_transformers_folder(tmp_path / "clip")), Path, "cpu")
    assert "of ten discs by their colours" in observe_colors(classifier).problems[0][0]


def options(folder: Path) -> ClipOptions:
    return ClipOptions(checkpoint=str(folder), backend="transformers", architecture=None)


def test_only_a_record_tells_plain_gelu_from_quick_gelu(folder, tmp_path):
    part = Part("colors", "clip", {}, {"checkpoint": "ab" * 32}, tmp_path / "clip.canary.json")
    classifier = ClipColorMaker.load(options(folder), Path, "cpu")
    evaluator = Evaluator(ShapesDetector(), classifier, VerdictOptions())
    write_record(part, run_canary(evaluator, {"colors": part})["colors"].seen, {})
    assert run_canary(evaluator, {"colors": part})["colors"].outcome == AS_RECORDED
    for module in classifier.embedder.network.modules():
        if hasattr(module, "activation_fn"):
            module.activation_fn = torch.nn.GELU()
    assert not observe_colors(classifier).problems
    with pytest.raises(CanaryFailed, match=r"\(QuickGELU\)"):
        run_canary(evaluator, {"colors": part})
