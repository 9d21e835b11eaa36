"""Where recordings lie: under GENLOOP_GOLDENS, else under tests/data and, when it is there, ../shared/goldens.

A folder that GENLOOP_GOLDENS names has to be there and to hold recordings. It may hold some kinds only: tests of the
others run on the small samples in tests/data, so that no test runs on nothing.
"""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
SAMPLES = ROOT / "tests" / "data"
KINDS = ("showo", "geneval", "detector", "diffusion")


def golden_roots() -> list[Path]:
    """The folders to look in; GENLOOP_GOLDENS may name several, separated as in PATH."""
    named = os.environ.get("GENLOOP_GOLDENS")
    if named:
        return [_checked(Path(part).expanduser()) for part in named.split(os.pathsep) if part]
    shared = ROOT.parent / "shared" / "goldens"
    return [SAMPLES, shared] if shared.is_dir() else [SAMPLES]


def _checked(root: Path) -> Path:
    """A named folder, unless it holds no recordings: then tests would pass without having looked at any of them."""
    if not any(path.is_file() for kind in KINDS for path in root.glob(f"{kind}/**/*")):
        raise FileNotFoundError(f"GENLOOP_GOLDENS: {root} holds no recordings (no files below {' or '.join(KINDS)})")
    return root


def golden_paths(pattern: str) -> list[Path]:
    """Everything that matches a pattern such as "geneval/decisions*.jsonl.gz" under the roots, else the samples."""
    found = sorted(path for root in golden_roots() for path in root.glob(pattern))
    found = found or sorted(SAMPLES.glob(pattern))
    assert found, f"no recordings {pattern} under {', '.join(map(str, golden_roots()))}"
    return found


def golden_name(path: Path) -> str:
    """A short name for a parametrized test: the last three parts of the path."""
    return "/".join(path.parts[-3:])
