"""Installed from a wheel, in an empty folder: every tiny preset runs, and nothing of the user's is imported."""

import os
import re
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runs import ROOT
from tests.unit.launch.test_pipelines import FILES, OWN_DATA
from tests.worlds.wheel import build_wheel

WORKERS = {"generate tiny": "2", "train_showo tiny": "2"}  # of an independent job, and of a collective one


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `genloop` of an environment that has the packages of this one, and genloop from a wheel."""
    place = tmp_path_factory.mktemp("wheel")
    wheel = build_wheel(place)
    venv.create(place / "venv", with_pip=False, symlinks=True)
    python = place / "venv/bin/python"
    words = ["install", "-q", "--no-deps", "--no-index", str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", "--python", str(python), *words], check=True, capture_output=True)
    (packages,) = (place / "venv/lib").glob("python*/site-packages")
    # A line of a .pth file is a folder whose own .pth files, that of the checkout among them, are not read.
    (packages / "others.pth").write_text(sysconfig.get_path("purelib"))
    return place / "venv/bin/genloop"


def tiny_presets() -> Iterator[tuple[str, str]]:
    """(job, preset) of all, each behind those whose runs it reads."""
    waiting = {}
    for file in sorted((ROOT / "configs").glob("*/*tiny*.yaml")):
        text = re.sub(r"(^|\s)#.*", "", file.read_text(encoding="utf-8"))
        if file.parent.name != "pipelines":
            out = re.findall(r"^out: (\S+)", text, re.M)[0]
            waiting[out] = (file.parent.name, file.stem, set(re.findall(r"runs/[\w-]+", text)) - {out})
    while waiting:
        ready = [out for out, (*_, needs) in waiting.items() if not needs & waiting.keys()]
        assert ready, f"{sorted(waiting)} wait for each other"
        yield from (waiting.pop(out)[:2] for out in ready)


@pytest.mark.slow
def test_every_pipeline_is_planned_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    commands = [["pipeline", file.stem, *OWN_DATA.get(file.stem, []), "--dry-run"] for file in FILES]
    code = f"from launch.cli import command; print([words for words in {commands} if command(words)])"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    words = [installed.with_name("python"), "-P", "-c", code]
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.endswith("\n[]\n"), done.stderr
    assert len(FILES) > 10 and not list(tmp_path.iterdir())


@pytest.mark.slow
def test_every_tiny_preset_runs_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    for name in ("launch", "calendar", "jobs", "configs"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('imported from the current folder')")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    failed = {}
    for job, preset in tiny_presets():
        words = ["run", job, preset, "--procs", WORKERS.get(f"{job} {preset}", "1")]
        done = subprocess.run(
            [installed, *words], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            failed[f"{job} {preset}"] = done.stderr[-2000:]
    assert failed == {}
    assert (tmp_path / "runs/generate-tiny/images").is_dir()
