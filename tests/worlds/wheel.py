"""genloop as a wheel, built from this checkout without touching it."""

import subprocess
import sys
from pathlib import Path

from tests.processes import ROOT


def build_wheel(place: Path) -> Path:
    """Build it below an empty folder -> the file."""
    build = ["build", "--build-base", str(place / "build"), "egg_info", "--egg-base", str(place)]
    wheel = ["bdist_wheel", "--dist-dir", str(place), "--bdist-dir", str(place / "bdist")]
    command = [sys.executable, "setup.py", "-q", *build, *wheel]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (found,) = place.glob("*.whl")
    return found
