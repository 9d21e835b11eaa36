"""Where recordings lie: under GENLOOP_GOLDENS, else under tests/data and, when it is there, ../shared/goldens."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
SAMPLES = ROOT / "tests" / "data"


def golden_roots() -> list[Path]:
    """The folders to look in; GENLOOP_GOLDENS may name several, separated as in PATH."""
    named = os.environ.get("GENLOOP_GOLDENS")
    if named:
        return [Path(part).expanduser() for part in named.split(os.pathsep) if part]
    shared = ROOT.parent / "shared" / "goldens"
    return [SAMPLES, shared] if shared.is_dir() else [SAMPLES]


def golden_paths(pattern: str) -> list[Path]:
    """Everything that matches a pattern such as "geneval/decisions*.jsonl.gz" under the roots.

    Where the roots have none of this kind, the small samples in tests/data are used, so that no test runs on nothing.
    """
    found = sorted(path for root in golden_roots() for path in root.glob(pattern))
    found = found or sorted(SAMPLES.glob(pattern))
    assert found, f"no recordings {pattern} under {', '.join(map(str, golden_roots()))}"
    return found


def golden_name(path: Path) -> str:
    """A short name for a parametrized test: the last three parts of the path."""
    return "/".join(path.parts[-3:])
