"""What a run ran on: code version, packages, hardware, command. Read without importing torch."""

import hashlib
import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import time
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import Any

from genloop.redaction import redact_word

PACKAGES = ("torch", "transformers", "numpy", "pydantic", "safetensors", "pillow", "scipy", "webdataset", "mmdet")


def describe() -> dict[str, Any]:
    """Versions, hardware, git commit, command and start time of this process."""
    import genloop

    return {
        "genloop": genloop.__version__,
        **_code(),
        "python": platform.python_version(),
        "packages": package_versions(),
        "platform": platform.platform(),
        "cpu": {"model": cpu_model(), "cores": os.cpu_count(), "memory_gib": memory_gib()},
        "gpus": gpu_names(),
        "float32_on_gpus": float32_products(),
        "command": [Path(sys.argv[0]).name, *map(redact_word, sys.argv[1:])],
        "started": now(),
    }


def imports_alike() -> dict[str, str]:
    """Variables for a Python process: it imports from the same places as this one, and not from the current folder."""
    stdlib = Path(sysconfig.get_paths()["stdlib"])
    others = {str(stdlib), str(stdlib.with_name(f"python{sys.version_info[0]}{sys.version_info[1]}.zip"))}
    own = takewhile(lambda place: place not in others, sys.path)
    return {"PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(str(Path(place).absolute()) for place in own)}


def now() -> str:
    """The time in UTC, as ISO 8601."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


@cache
def package_versions() -> dict[str, str]:
    """{package: version} of those that results depend on."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def git_state(folder: Path) -> dict[str, Any] | None:
    """{"commit", "dirty"} of the checkout the code runs from; None for an installed package."""
    if not (folder / ".git").exists():
        return None
    commit = _output(["git", "-C", str(folder), "rev-parse", "HEAD"])
    changes = _output(["git", "-C", str(folder), "status", "--porcelain", "--untracked-files=no"])
    return {"commit": commit, "dirty": bool(changes)} if commit else None


@cache
def _code() -> dict[str, Any]:
    """Where the code of this process comes from; files that change later are not what it runs."""
    folder = Path(__file__).resolve().parent.parent
    return {"git": git_state(folder), "code": code_digest(folder)}


def code_digest(folder: Path) -> str:
    """sha256 of all code that decides a result, by relative name and content: for what has no git commit."""
    digest = hashlib.sha256()
    for top in ("geneval", "genloop", "jobs"):
        for file in sorted((folder / top).rglob("*.py")):
            digest.update(f"{file.relative_to(folder).as_posix()}\0".encode() + file.read_bytes() + b"\0")
    return digest.hexdigest()


def cpu_model() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def memory_gib() -> float:
    """Physical memory in GiB."""
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)


def gpu_names() -> list[str]:
    """Name, memory and driver of each NVIDIA GPU; empty without any."""
    if shutil.which("nvidia-smi") is None:
        return []
    fields = "--query-gpu=name,memory.total,driver_version"
    return _output(["nvidia-smi", fields, "--format=csv,noheader"]).splitlines()


def float32_products() -> dict[str, str]:
    """How a GPU multiplies float32 numbers: as torch is set when it starts, which two variables of others can change.

    tf32 keeps 10 bits of each factor, ieee all 23. CLIP and Mask2Former are ieee in any case.
    """
    forbidden = os.environ.get("NVIDIA_TF32_OVERRIDE") == "0"
    asked = os.environ.get("TORCH_ALLOW_TF32_CUBLAS_OVERRIDE") == "1"
    return {
        "matrices": "tf32" if asked and not forbidden else "ieee",
        "convolutions": "ieee" if forbidden else "tf32",
    }


def _output(command: list[str]) -> str:
    """Standard output of a short command; empty when it is absent, fails or hangs."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
