"""Runs of a diffusion model: rows, cards and readers, and what is refused before any work."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from genloop.job import run_command
from genloop.ledger import read_rows
from jobs import build_pairs, evaluate, generate, report, verify
from tests.runs import contents, refusal
from tests.worlds.diffusion_folder import write_folder
from tests.worlds.tiny_clip import write_transformers_folder
from tests.worlds.tiny_diffusion import write_pipeline

OWN = "generator.kind=tests.worlds.gaussian_generator:GaussianGenerator"
FEW = ["tiny", "limit=2", "images_per_prompt=2", "sampling.steps=4", "sampling.guidance_scale=3", OWN]
SEARCHES = {
    "none": [],
    "best_of_n": ["search.strategy=best_of_n", "search.n=3"],
    "parm": ["search.strategy=parm", "search.n=4", "search.options.at=2", "previews=judged"],
}


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = write_transformers_folder(tmp_path_factory.mktemp("clip") / "clip")
    return ["judge.kind=clip_score", "judge.options.backend=transformers", f"judge.options.checkpoint={folder}"]


def run(out: Path, judge: Sequence[str], *words: str) -> Path:
    assert run_command(generate, [*FEW, *words, *judge, f"out={out}"]) == 0
    return out


@pytest.mark.parametrize("name", SEARCHES)
def test_rows_name_what_seeds_lead_to_and_do_not_depend_on_slots(tmp_path: Path, judge: list[str], name: str) -> None:
    wide = run(tmp_path / "wide", judge, *SEARCHES[name])
    assert contents(wide) == contents(run(tmp_path / "narrow", judge, *SEARCHES[name], "slots=1"))
    for row in read_rows(wide):
        best = row["candidates"][row["chosen"]]
        assert len(row["latents_sha256"]) == 64 and best["latents_sha256"] == row["latents_sha256"]
        assert "tokens" not in row and row["cost"]["flops"] >= row["cost"]["flops_without_search"]
    assert run_command(verify, [f"run={wide}", f"out={tmp_path / 'checked'}"]) == 0


def test_a_report_of_such_a_run_has_a_page(tmp_path: Path, judge: list[str]) -> None:
    made = run(tmp_path / "run", judge, *SEARCHES["parm"])
    judged = tmp_path / "judged"
    assert (
        run_command(evaluate, ["tiny", "expect.on_missing=report", f"images={made / 'images'}", f"out={judged}"]) == 0
    )
    assert run_command(report, [f"runs=[{judged}]", f"out={tmp_path / 'report'}"]) == 0
    assert (tmp_path / "report" / "index.html").stat().st_size > 1000


def test_jobs_that_learn_from_tokens_refuse_such_a_run(
    tmp_path: Path, judge: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    made = run(tmp_path / "run", judge, *SEARCHES["best_of_n"])
    error = refusal(build_pairs, ["tiny", f"source={made}", f"out={tmp_path / 'pairs'}"], tmp_path, capsys)
    assert "source" in error and "image tokens" in error


def test_a_correction_in_words_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["search.options.start=best_of_n", "search.options.correction=layout", "judge.kind=shapes_oracle"]
    words = [*FEW, "search.strategy=parm_plus_plus", "search.n=2", *options]
    assert "search.options.correction" in refusal(generate, [*words, f"out={tmp_path / 'run'}"], tmp_path, capsys)


@pytest.mark.parametrize("name", SEARCHES)
def test_a_pipeline_is_searched_like_any_generator(tmp_path: Path, judge: list[str], name: str) -> None:
    options = [f"generator.options.pipeline={write_pipeline(tmp_path / 'sd')}", "sampling.steps=3", *judge]
    words = ["tiny_diffusion", "limit=2", *options, *SEARCHES[name]]
    assert run_command(generate, [*words, f"out={tmp_path / 'wide'}"]) == 0
    assert run_command(generate, [*words, "slots=1", f"out={tmp_path / 'narrow'}"]) == 0
    assert contents(tmp_path / "wide") == contents(tmp_path / "narrow")
    assert all(row["cost"]["flops_without_search"] > 1e6 for row in read_rows(tmp_path / "wide"))


def test_images_are_restyled_by_a_search_that_judges_in_between(tmp_path: Path, judge: list[str]) -> None:
    words = ["restyle_tiny", "limit=2", "generator.options.pipeline=ckpts/tiny/sd", "search={}", *judge]
    words += ["mode.options.strength=0.7", "sampling.steps=5", *SEARCHES["parm"]]
    assert run_command(generate, [*words, f"out={tmp_path / 'wide'}"]) == 0
    assert run_command(generate, [*words, "slots=1", f"out={tmp_path / 'narrow'}"]) == 0
    assert contents(tmp_path / "wide") == contents(tmp_path / "narrow")
    assert {(row["given"], row["num_steps"]) for row in read_rows(tmp_path / "wide")} == {("0.png", 3), ("1.png", 3)}
    assert run_command(verify, [f"run={tmp_path / 'wide'}", f"out={tmp_path / 'checked'}"]) == 0


def _edit(file: Path, **values: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def _lora(folder: Path, key: str, shape: tuple[int, ...]) -> str:
    """A file with one factor, and the other one where it is the first."""
    file = folder.parent / "lora.safetensors"
    other = {key.replace("lora_A", "lora_B"): torch.zeros(8, shape[0])} if "lora_A" in key else {}
    save_file({key: torch.zeros(shape)} | other, file)
    return f"generator.options.lora=['{file}:0.5']"


Damage = Callable[[Path], str | None]
BAD: dict[str, tuple[Damage, str]] = {
    "no pipeline": (lambda f: (f / "model_index.json").unlink(), "model_index.json"),
    "another pipeline": (lambda f: _edit(f / "model_index.json", _class_name="FluxPipeline"), "FluxPipeline"),
    "no vae": (lambda f: (f / "vae" / "config.json").unlink(), "vae"),
    "no unet weights": (lambda f: (f / "unet" / "diffusion_pytorch_model.safetensors").unlink(), "unet"),
    "torn weights": (lambda f: (f / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(b"torn"), "vae"),
    "no tokenizer": (lambda f: (f / "tokenizer").rmdir(), "tokenizer"),
    "no scheduler": (lambda f: (f / "scheduler" / "scheduler_config.json").unlink(), "scheduler"),
    "inpainting": (lambda f: _edit(f / "unet" / "config.json", in_channels=9), "channels"),
    "unknown scheduler": (lambda f: "sampling.scheduler=heun", "sampling.scheduler"),
    "own scheduler": (lambda f: "sampling.scheduler=checkpoint", "PNDMScheduler"),
    "flow of no flow": (lambda f: "sampling.scheduler=flow_euler", "flow_euler"),
    "odd size": (lambda f: "sampling.height=30", "sampling.height"),
    "no such lora": (lambda f: "generator.options.lora=[nowhere.safetensors:1]", "nowhere.safetensors"),
    "no weight": (lambda f: "generator.options.lora=['a.safetensors:much']", "lora"),
    "foreign layer": (lambda f: _lora(f, "unet.other.lora_A.weight", (4, 8)), "unet.other"),
    "another base": (lambda f: _lora(f, "unet.block.to_q.lora_A.weight", (4, 32)), "another base"),
    "no lora": (lambda f: _lora(f, "unet.block.to_q.weight", (8, 8)), "no key of a LoRA"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    damage, named = BAD[name]
    folder = write_folder(tmp_path / "sd")
    more = damage(folder)
    words = [
        "tiny",
        "sampling={}",
        "generator.kind=diffusion",
        f"generator.options.pipeline={folder}",
    ]
    words += [more] if isinstance(more, str) else []
    error = refusal(generate, [*words, f"out={tmp_path / 'run'}"], tmp_path, capsys)
    assert named in error
