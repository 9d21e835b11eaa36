"""An installed genloop finds what a checkout has: every module, preset, template and shipped weight."""

import subprocess
import sys
import zipfile

import genloop
from tests.runs import ROOT

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
    build = ["build", "--build-base", str(tmp_path / "build"), "egg_info", "--egg-base", str(tmp_path)]
    wheel = ["bdist_wheel", "--dist-dir", str(tmp_path), "--bdist-dir", str(tmp_path / "bdist")]
    done = subprocess.run(
        [sys.executable, "setup.py", "--quiet", *build, *wheel], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    held = set(zipfile.ZipFile(tmp_path / f"genloop-{genloop.__version__}-py3-none-any.whl").namelist())
    assert wanted - held == set()
