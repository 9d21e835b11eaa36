"""Check every file of a run folder against the sha256 that its rows recorded.

    genloop run verify run=runs/a out=runs/a-verified

Reads   RUN/rows/*.jsonl and the images or shards that they name, RUN/plan.json, the manifests of saved checkpoints.
Writes  OUT/rows/*.jsonl: one line a checked row; the verdict goes to standard output.
Resume  the same command; a run that has changed since needs another `out`. Exit code 1 when anything is missing,
        changed, unfinished or doubled.
"""

import collections
import hashlib
import json
from pathlib import Path
from typing import Any

from pydantic import Field

from genloop.checkpoint import MANIFEST_FILE, verify_folder
from genloop.config import IndependentConfig
from genloop.distributed import World
from genloop.job import run as run_job
from genloop.ledger import Ledger, count, finished, plan_of, plan_units, read_rows
from genloop.rundir import RunFailed, read_run, sha256_file

KIND = "independent"


class Config(IndependentConfig):
    run: Path = Field(description="the run folder to check")
    unit_size: int = Field(64, ge=1, description="row files in one unit of work")


def check(config: Config) -> None:
    """The run must be one."""
    if read_run(config.run) is None:
        raise ValueError(f"run: {config.run} is not a run folder (it has no run.json)")


def inputs(config: Config, checked: None) -> dict[str, str]:
    """The state of every file by size and time: a run that has changed since is another input."""
    digest = hashlib.sha256()
    folders = [config.run / name for name in ("rows", "images", "shards")] + _checkpoints(config.run)
    for path in sorted(path for folder in folders for path in folder.rglob("*")):
        state = path.stat()
        digest.update(f"{path.relative_to(config.run)} {state.st_size} {state.st_mtime_ns}\n".encode())
    return {"run": digest.hexdigest()}


def main(config: Config, world: World, checked: None) -> None:
    names = sorted(finished(config.run), key=int)[: config.limit]
    units = plan_units(len(names), config.unit_size)
    with Ledger.of(config, units, world) as ledger:
        for unit in ledger.claims():
            with ledger.working(unit):
                rows = [row for name in names[unit.start : unit.stop] for row in _check_rows(config.run, name)]
                ledger.advance(len(unit))
                ledger.complete(unit, rows)
    if count(config.out, len(units)).done == len(units):
        _report(config)


def _check_rows(run: Path, name: str) -> list[dict[str, Any]]:
    source = f"rows/{name}.jsonl"
    lines = (run / source).read_bytes().splitlines()  # of bytes: a prompt may hold other line separators
    found: list[dict[str, Any]] = [] if lines else [{"unit": name, "key": [], "image": source, "problem": "empty"}]
    for line in lines:
        try:
            row = json.loads(line)
            what = "shard" if "shard" in row else "image"
            file = f"shards/{row[what]}" if what == "shard" else row[what]
            key = [file] if what == "shard" else [row["prompt_index"], row["sample"]]
        except (ValueError, KeyError, TypeError):
            found.append({"unit": name, "key": [], "image": source, "problem": "unreadable"})
            continue
        problem = _problem(run / file, row["sha256"]) if "sha256" in row else None  # a verdict has no file of its own
        found.append({"unit": name, "key": key, what: file, "problem": problem})
    return found


def _problem(path: Path, digest: str) -> str:
    return "missing" if not path.is_file() else "" if sha256_file(path) == digest else "changed"


def _report(config: Config) -> None:
    """Print what was found; raise when it is not clean."""
    rows = list(read_rows(config.out))
    doubled = [key for key, n in collections.Counter(tuple(row["key"]) for row in rows).items() if key and n > 1]
    bad = [f"{row.get('image') or row['shard']} {row['problem']}" for row in rows if row["problem"]]
    folders = [] if config.limit else _checkpoints(config.run)
    for folder in folders:
        try:
            verify_folder(folder)
        except ValueError as error:
            bad.append(str(error))
    left = 0 if config.limit else plan_of(config.run).get("units", 0) - len(finished(config.run))
    files = sum(row["problem"] is not None for row in rows)
    print(
        f"{config.run}: {len(rows)} rows, {files} files and {len(folders)} checkpoints checked, "
        f"{len(bad)} bad, {len(doubled)} doubled, {left} units unfinished"
    )
    if bad or doubled or left:
        listed = bad[:5] + [f"doubled {key}" for key in doubled[:5]]
        raise RunFailed(f"{config.run} is not clean: {'; '.join(listed) or f'{left} units unfinished'}")


def _checkpoints(run: Path) -> list[Path]:
    return sorted(path.parent for path in run.rglob(MANIFEST_FILE))


if __name__ == "__main__":
    run_job(main, Config)
