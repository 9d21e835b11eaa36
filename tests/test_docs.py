"""The documents say what is: examples run as they stand, tables are those of the code, links lead somewhere."""

import ast
import importlib
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from geneval.detectors.tables import DETECTORS
from genloop.data.prompts import caption, read_metadata
from genloop.job import parse, run_command
from genloop.ledger import read_rows
from genloop.records import COLORS, RELATIONS, TAGS
from genloop.rewards import JUDGES
from genloop.search import STRATEGIES
from genloop.shapes.scenes import SHAPES
from tests.test_layering import ALLOWED

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "benchmarks").glob("*.md")])
PAGES = sorted((ROOT / "docs").glob("*.md"))
PROMPTS = ROOT / "configs" / "prompts" / "shapes_tiny"
MOST_WORDS_OF_README = 740


def examples() -> dict[str, str]:
    """{path: source} of the Python blocks of docs/extending.md; each opens with a comment that says its path."""
    text = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n# (\S+)\n(.*?)```", text, re.S)
    assert len(blocks) == text.count("```python")
    return dict(blocks)


@pytest.fixture
def extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the example modules, on the import path."""
    folder = tmp_path / "extra"
    folder.mkdir()
    (folder / "__init__.py").touch()
    for path, source in examples().items():
        (folder / Path(path).name).write_text(source, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return folder


def generate(out: Path, *words: str) -> list[dict[str, Any]]:
    """A few images of the tiny prompts -> their rows."""
    from jobs import generate as job

    settings = [f"out={out}", "limit=6", "images_per_prompt=1", "sampling.steps=9"]
    code = run_command(
        job,
        [
            f"prompts={PROMPTS}/generation_prompts.txt",
            f"metadata={PROMPTS}/evaluation_metadata.jsonl",
            *settings,
            *words,
        ],
    )
    assert code == 0
    return list(read_rows(out))


def test_the_page_of_prompts_has_a_line_of_every_task_and_the_words_of_the_small_world(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "prompts.md").read_text(encoding="utf-8")
    (lines,) = re.findall(r"```jsonl\n(.*?)```", page, re.S)
    (tmp_path / "meta.jsonl").write_text(lines, encoding="utf-8")
    found = read_metadata(tmp_path / "meta.jsonl", classes=SHAPES)
    assert [prompt.tag for prompt in found] == list(TAGS)
    assert [prompt.text for prompt in found] == [caption(str(prompt.tag), prompt.include) for prompt in found]
    for name, words in (("shapes", SHAPES), ("colours", COLORS), ("relations", RELATIONS)):
        assert f"- {name}: {', '.join(words)}" in page


def test_the_example_of_the_calls_from_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    (source,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(encoding="utf-8"), re.S)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"images": torch.zeros(1, 3, 24, 24)}
    exec(source, names)
    assert names["p_yes"].shape == (1,) and (tmp_path / "star.png").is_file()
    assert len(names["found"].rows) == len(names["drawn"].rows) == 2


def test_the_example_job_runs_on_two_workers(extra: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "launch.cli", "run", "extra.count_words", "unit_size=2", "--procs", "2"]
    words = [f"prompts={PROMPTS}/generation_prompts.txt", f"out={tmp_path / 'run'}", "min_letters=2"]
    paths = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = subprocess.run(
        [*command, *words], cwd=tmp_path, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    lines = (PROMPTS / "generation_prompts.txt").read_text(encoding="utf-8").splitlines()
    counts = [sum(len(word) >= 2 for word in line.split()) for line in lines]
    assert [row["num_words"] for row in read_rows(tmp_path / "run")] == counts


def test_the_example_strategy_chooses_as_best_of_n_does_with_a_yes_no_judge(
    extra: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(STRATEGIES, "first_good", "extra.first_good:FirstGood")
    ours = generate(tmp_path / "a", "search.strategy=first_good", "search.n=3", "search.options.accept=0.7")
    theirs = generate(tmp_path / "b", "search.strategy=best_of_n", "search.n=3")
    assert [(row["chosen"], row["tokens"]) for row in ours] == [(row["chosen"], row["tokens"]) for row in theirs]
    assert all(row["cost"]["judge_calls"] == len(row["candidates"]) <= 3 for row in ours)
    assert min(len(row["candidates"]) for row in ours) < 3  # some were good at once


def test_the_example_without_the_scheduler_chooses_as_best_of_n_does(
    extra: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(STRATEGIES, "by_hand", "extra.by_hand:ByHand")
    ours = generate(tmp_path / "a", "search.strategy=by_hand", "search.n=2")
    theirs = generate(tmp_path / "b", "search.strategy=best_of_n", "search.n=2")
    assert [(row["chosen"], row["tokens"]) for row in ours] == [(row["chosen"], row["tokens"]) for row in theirs]


def test_the_example_judge_decides_best_of_n(extra: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(JUDGES, "vivid", "extra.vivid:Vivid")
    rows = generate(tmp_path / "a", "search.strategy=best_of_n", "search.n=3", "judge.kind=vivid")
    for row in rows:
        scores = [candidate["p_yes"]["outcome"] for candidate in row["candidates"]]
        assert row["chosen"] == scores.index(max(scores)) and 0 < min(scores) < max(scores) < 1


def test_the_example_detector_is_used_by_evaluate(extra: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from jobs import evaluate as job
    from tests.worlds.report_runs import Sketch, write_runs

    monkeypatch.setitem(DETECTORS, "one_circle", "extra.one_circle:OneCircle")
    write_runs(tmp_path, "a", Sketch(prompts_per_task=1, tags=("single_object",)))
    circle = {"tag": "single_object", "include": [{"class": "circle", "count": 1}], "prompt": "a photo of a circle"}
    (tmp_path / "a" / "images" / "00000" / "metadata.jsonl").write_text(json.dumps(circle))
    words = [f"images={tmp_path / 'a' / 'images'}", f"out={tmp_path / 'b'}", "detector=one_circle", "colors=shapes"]
    words.append("expect.on_missing=report")  # one task only
    assert run_command(job, words) == 0
    rows = list(read_rows(tmp_path / "b"))
    assert [(row["correct"], row["details"]) for row in rows] == [(True, {"circle": [[0.0, 0.0, 24.0, 24.0, 1.0]]})]


def test_the_example_of_a_reward_runs_as_it_stands(tmp_path: Path) -> None:
    section = (
        (ROOT / "docs" / "geneval.md").read_text(encoding="utf-8").split("\n## As a reward\n")[1].split("\n## ")[0]
    )
    (block,) = re.findall(r"```python\n(.*?)```", section, re.S)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", block], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.match(r"Reward\(strict=False, partial=[\d.]+, reasons=\('expected .+\), words='.+'\)\n", done.stdout)


def test_the_table_of_layers_is_the_law() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = text.split("| layer | imports |")[1].split("\n\n")[0]
    documented: dict[str, set[str]] = {}
    for layers, imports in re.findall(r"^\| (.+?) \| (.+?) \|$", table, re.M):
        for layer in layers.split(", "):
            documented[layer] = set(imports.partition(";")[0].split(", "))
    assert documented.pop("jobs") == {"everything below"}
    law = {layer: allowed for layer, allowed in ALLOWED.items() if allowed and layer != "jobs"}
    assert documented == law
    assert ALLOWED["jobs"] == set(ALLOWED) - {"jobs", "launch", "api"}


def headings(page: Path) -> list[str]:
    """Anchors of a page's headings as GitHub makes them."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    titles = re.findall(r"^#+ (.+)$", text, re.M)
    return [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]


@pytest.mark.parametrize("document", [path.relative_to(ROOT).as_posix() for path in DOCUMENTS])
def test_links_lead_to_files_and_headings_that_are_there(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    broken = []
    for link in re.findall(r"\]\(([^)]+)\)", text):
        path, _, anchor = link.partition("#")
        target = (ROOT / document).parent / path if path else ROOT / document
        if "://" not in link and not (target.exists() and (not anchor or anchor in headings(target))):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("page", [page.stem for page in PAGES])
def test_a_page_opens_with_its_purpose_and_a_command_and_ends_with_what_falls_short(page: str) -> None:
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    opening = text.partition("\n## ")[0]
    title, purpose, *_ = opening.split("\n\n")
    assert title.startswith("# ") and purpose[0].isalpha() and len(purpose.split()) >= 8
    assert "```" in opening or re.search(r"^    \S", opening, re.M), "no command before the first section"
    *_, last = re.findall(r"^## (.+)$", text, re.M)
    assert last == "What falls short" or page in {"architecture", "jobs"}


def test_the_list_of_benchmarks_links_every_page_and_names_scripts_that_are_there() -> None:
    text = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    pages = {page.name for page in (ROOT / "benchmarks").glob("*.md")} - {"README.md"}
    assert pages - set(re.findall(r"\]\(([\w.]+)\)", text)) == set()
    scripts = re.findall(r"`(?:benchmarks/)?(\w+\.py)\b", text)
    assert [script for script in scripts if not (ROOT / "benchmarks" / script).is_file()] == []


def test_the_readme_stays_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= MOST_WORDS_OF_README


def test_the_table_of_jobs_has_every_job_with_the_summary_and_the_files_of_its_manual() -> None:
    text = (ROOT / "docs" / "jobs.md").read_text(encoding="utf-8").split("## Table of jobs")[1].split("\n## ")[0]
    rows = {job: rest.split(" | ") for job, rest in re.findall(r"^\| `(\w+)` \| (.+) \|$", text, re.M)}
    manuals = {
        file.stem: ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
        for file in (ROOT / "jobs").glob("*.py")
        if file.stem != "__init__"
    }
    assert {job: cells[0] for job, cells in rows.items()} == {
        job: text.splitlines()[0] for job, text in manuals.items()
    }
    for job, (_, _, writes, page) in rows.items():
        files = [path.rstrip("/") for path in re.findall(r"`([\w./-]+)`", writes)]
        assert files and [file for file in files if file not in manuals[job]] == [], job
        (linked,) = re.findall(r"\]\(([\w-]+\.md)\)", page)
        assert job in (ROOT / "docs" / linked).read_text(encoding="utf-8"), f"{linked} does not name {job}"


def test_the_table_of_pipelines_has_every_pipeline() -> None:
    text = (ROOT / "docs" / "jobs.md").read_text(encoding="utf-8").split("## Table of pipelines")[1]
    named = [name for row in re.findall(r"^\| `(\w+)` \| `(\w+)` \|", text, re.M) for name in row]
    assert sorted(named) == sorted(file.stem for file in (ROOT / "configs" / "pipelines").glob("*.yaml"))


def test_the_folders_of_the_architecture_are_those_of_the_project() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    block = text.split("## Folders\n```\n")[1].split("```")[0]
    listed = {line.split()[0] for line in block.splitlines()}
    assert [folder for folder in listed if not (ROOT / folder).is_dir()] == []
    packages = {
        folder.relative_to(ROOT).as_posix() + "/"
        for top in ("launch", "geneval", "genloop")
        for folder in [ROOT / top, *(ROOT / top).iterdir()]
        if any(folder.glob("*.py"))
    }
    assert packages - listed == set()


def test_files_that_the_documents_name_are_there() -> None:
    tops = "launch|jobs|geneval|ckpts|configs|genloop|tests|benchmarks|docs"
    named = {
        path
        for document in DOCUMENTS
        for path in re.findall(rf"`((?:{tops})/[\w./-]+\.\w+)`", document.read_text(encoding="utf-8"))
    }
    assert (
        sorted(
            path for path in named - set(examples()) if not re.search("NAME|JOB", path) and not (ROOT / path).exists()
        )
        == []
    )


def test_commands_that_documents_and_manuals_show_name_jobs_and_presets_that_are_there() -> None:
    shown = {
        command
        for document in [*DOCUMENTS, *(ROOT / "jobs").glob("*.py")]
        for command in re.findall(r"(?:genloop run|-m jobs\.)\s?([a-z]\w+) ([a-z]\w+)\b(?!=)", document.read_text())
    }
    own = {Path(path).stem for path in examples()}
    assert len(shown) > 5
    assert [(job, preset) for job, preset in shown if job not in own and not _preset(job, preset).is_file()] == []


def commands(document: Path) -> list[list[str]]:
    """Words of each whole `genloop run` command in a page; those with places to be filled in are left out."""
    text = re.sub(r" \\\n\s+", " ", document.read_text(encoding="utf-8"))
    inline = re.findall(r"`genloop run ([^`]+)`", text)
    lines = re.findall(r"^ *genloop run (.+?)(?: {3,}.*)?$", text, re.M)
    found = [shlex.split(command, comments=True) for command in inline + lines]
    return [words for words in found if words[0].islower() and not re.search(r"\.\.\.|PRESET|=NAME\b", " ".join(words))]


@pytest.mark.parametrize(
    "document", ["README.md", *(f"docs/{page.name}" for page in PAGES if page.stem != "extending")]
)
def test_commands_of_the_pages_are_accepted_as_they_stand(document: str) -> None:
    """Jobs, presets, keys and values; what a command reads need not be there."""
    for job, *words in commands(ROOT / document):
        options = [word for number, word in enumerate(words) if "--procs" in words[max(0, number - 1) : number + 1]]
        given = [word for word in words if word not in {*options, "--help"}]
        if "--help" not in words and (ROOT / "jobs" / f"{job}.py").is_file():
            parse(importlib.import_module(f"jobs.{job}"), given)
    assert len(commands(ROOT / document)) >= {"README.md": 5, "docs/coming-from.md": 10}.get(document, 0)


def _preset(job: str, preset: str) -> Path:
    return ROOT / "configs" / job / f"{preset}.yaml"


@pytest.mark.parametrize("document", ["README.md", *(f"docs/{page.name}" for page in PAGES)])
def test_a_remark_behind_a_command_is_a_comment_so_that_whole_lines_can_be_pasted(document: str) -> None:
    lines = re.findall(r"^ *(?:genloop [a-z]|torchrun ).+$", (ROOT / document).read_text(encoding="utf-8"), re.M)
    assert [line for line in lines if re.search(r"\S {2,}[^#\s]", line)] == []


def test_guidelines_stay_short() -> None:
    assert len((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").splitlines()) <= 80
