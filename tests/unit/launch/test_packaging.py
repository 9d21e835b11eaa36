"""An installed genloop finds what a checkout has: every module, preset, template and shipped weight."""

import re
import subprocess
import zipfile

import pytest

import genloop
from genloop.registry import INSTALL
from tests.runs import ROOT
from tests.worlds.wheel import build_wheel

PACKAGES = ("launch", "jobs", "geneval", "ckpts", "genloop", "configs")


def test_the_wheel_holds_every_file_of_the_packages(tmp_path):
    tree = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *PACKAGES],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    wanted = {name for name in tree.stdout.splitlines() if (ROOT / name).exists()}
    wheel = build_wheel(tmp_path)
    assert wheel.name == f"genloop-{genloop.__version__}-py3-none-any.whl"
    assert wanted - set(zipfile.ZipFile(wheel).namelist()) == set()


@pytest.mark.parametrize("name", ["Makefile", "README.md", "docs/training.md"])
def test_deepspeed_is_installed_without_the_toolkit_of_cuda_wherever_that_is_written(name):
    variables = re.findall(r"DS_\w+=\S+", INSTALL["train"])
    lines = [
        line for line in (ROOT / name).read_text(encoding="utf-8").splitlines() if re.search(r"\[.*train[],]", line)
    ]
    assert lines and variables
    installing = [line for line in lines if "--no-build-isolation" in line]
    assert all(variable in line for variable in variables for line in installing)
    assert not [line for line in lines if "pip install" in line and line not in installing]
