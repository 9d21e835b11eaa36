"""How many workers a machine gets."""

import os
import subprocess

MAX_PROCS = 1024


def number_of_procs(text: str) -> int:
    """ "4" -> 4; "auto" -> as many as this machine has GPUs that may be used, at least one."""
    if text == "auto":
        return max(1, number_of_gpus())
    if not text.isdecimal() or not 1 <= int(text) <= MAX_PROCS:
        raise ValueError(f"--procs: 1 to {MAX_PROCS} or auto, found {text}")
    return int(text)


def number_of_gpus() -> int:
    """GPUs of this machine that may be used."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return len([name for name in chosen.split(",") if name.strip() not in {"", "-1"}])
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return sum(line.startswith("GPU ") for line in done.stdout.splitlines())
