"""Completion of the command line: what bash is offered, without starting Python."""

import subprocess
import sys

import pytest

from launch.commands.completion import script
from tests.processes import ROOT


@pytest.fixture(scope="module")
def source() -> str:
    return script()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["re"], ["resume", "report"]),
        (["run", "genera"], ["generate"]),
        (["run", "generate", "inp"], ["inpaint_tiny"]),
        (["run", "generate", "mi"], ["mine"]),  # a preset of the current folder
        (["run", "generate", "tiny", "search.stra"], ["search.strategy="]),
        (["run", "generate", "tiny", "--print"], ["--print-config"]),
        (["submit", "train_showo", "sha"], ["shapes", "shards="]),
        (["ckpts", "ver"], ["verify"]),
        (["run", "generate", "prompts", "=", "f"], []),  # files
    ],
)
def test_bash_is_offered_what_fits(source: str, tmp_path, words: list[str], offered: list[str]) -> None:
    (tmp_path / "configs/generate").mkdir(parents=True)
    (tmp_path / "configs/generate/mine.yaml").touch()
    ask = 'COMP_WORDS=(genloop "$@"); COMP_CWORD=$#; _genloop; printf "%s\\n" "${COMPREPLY[@]}"'
    command = ["bash", "-c", f"{source}\n{ask}", "bash", *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split() == offered


def test_the_script_is_made_without_torch() -> None:
    asked = "import sys; from launch.commands.completion import script; script(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", asked], cwd=ROOT).returncode == 0
