"""Programs of Slurm that print what they are told to, for tests of what is made of it."""

import os
from pathlib import Path

PROGRAMS = ("sbatch", "squeue", "sacct", "scancel", "scontrol")
RECORDED = Path(__file__).resolve().parent.parent / "data" / "slurm"
_SCRIPT = """#!/bin/bash
here={folder}
name=$(basename "$0")
echo "$name $*" >> "$here/calls"
env > "$here/$name.environment"
sleep "$(cat "$here/$name.sleep" 2>/dev/null || echo 0)"
cat "$here/$name.err" >&2 2>/dev/null
cat "$here/$name.out" 2>/dev/null
exit "$(cat "$here/$name.rc" 2>/dev/null || echo 0)"
"""


class FakeSlurm:
    """A folder of programs, which has to come first in PATH."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        for program in PROGRAMS:
            (folder / program).write_text(_SCRIPT.format(folder=folder))
            (folder / program).chmod(0o755)
        self.path = f"{folder}{os.pathsep}{os.environ['PATH']}"
        self.says("sbatch", "11")
        self.refuses("sacct", (RECORDED / "no_accounting.err").read_text())

    def says(self, program: str, text: str) -> None:
        """Print it and succeed."""
        self._write(program, text, "", 0)

    def refuses(self, program: str, text: str) -> None:
        """Complain and fail."""
        self._write(program, "", text, 1)

    def hangs(self, program: str, seconds: float) -> None:
        """Answer late."""
        (self.folder / f"{program}.sleep").write_text(str(seconds))

    def calls(self, program: str) -> list[str]:
        """The arguments of each call so far."""
        file = self.folder / "calls"
        lines = file.read_text().splitlines() if file.exists() else []
        return [line.partition(" ")[2] for line in lines if line.partition(" ")[0] == program]

    def heard(self, program: str, name: str) -> bool:
        """Whether a variable was set at its last call."""
        lines = (self.folder / f"{program}.environment").read_text().splitlines()
        return any(line.startswith(f"{name}=") for line in lines)

    def _write(self, program: str, out: str, error: str, code: int) -> None:
        for suffix, text in (("out", out), ("err", error), ("rc", str(code))):
            (self.folder / f"{program}.{suffix}").write_text(text)
