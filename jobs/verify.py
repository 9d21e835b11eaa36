"""Check every file of a run folder against the sha256 that was recorded for it.

    genloop run verify run=runs/a out=runs/a-verified
    genloop run verify run=runs/irg out=runs/irg-verified pixels=true --procs 2
    genloop run verify run=data/traces out=runs/traces-verified unit_size=1

Reads   RUN/rows/*.jsonl and the images or shards that they name, RUN/checksums and the files that they name
        (metadata, previews, features, the row files), the shards in RUN/summary.json, RUN/plan.json, the manifests
        of saved checkpoints.
Writes  OUT/rows/*.jsonl, one line a checked row; the verdict goes to standard output. Exit code 1 when anything is
        missing, changed, unreadable, unfinished, doubled, or there although nothing was recorded about it.
Resume  the same command; finished units are kept, any number of workers may join or leave. A run that has changed
        since needs another `out`.

Of a run of build_irg, or of any folder of shards of traces, every text is read, too: quoted numbers against the
stored ones, diagnoses against their evidence, actions and accepted rounds against their records, images against
their sha256; `pixels` measures features and executes actions again. What is not understood is told, and is no
fault.
"""

import collections
import hashlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from genloop import terminal
from genloop.bounds import Count
from genloop.checkpoint import MANIFEST_FILE, verify_folder
from genloop.config import ADDED, IndependentConfig
from genloop.data.members import is_member, is_there, read_any
from genloop.distributed import World
from genloop.hashing import files_below
from genloop.job import one_line
from genloop.job import run as run_job
from genloop.ledger import Ledger, count, finished, plan_of, plan_units, read_rows
from genloop.reading import json_object, object_or_empty, read_bytes, read_utf8, regular_file
from genloop.rundir import RunFailed, check_inside, read_run, sha256_file

KIND = "independent"
_TRACES = {"build_irg", "export_irg"}  # jobs that write shards of traces
_FOLDERS = ("images", "paths", "features", "shards")  # of files that rows or checksums name


class Config(IndependentConfig):
    run: Path = Field(description="the run folder to check, or a folder of shards of traces")
    unit_size: Count = Field(64, description="row files, or shards of a folder, in one unit of work")
    pixels: Annotated[bool, ADDED] = Field(False, description="of traces: measure and execute everything again")


def check(config: Config) -> None:
    """The run must be one, or a folder that holds shards."""
    if read_run(config.run) is None and not (config.run.is_dir() and any(config.run.rglob("*.tar"))):
        raise ValueError(f"run: {config.run} is not a run folder (it has no run.json), nor does it hold shards")


def inputs(config: Config, checked: None) -> dict[str, str]:
    """The state of every file by size and time: a run that has changed since is another input."""
    digest = hashlib.sha256()
    folders = [config.run / name for name in (*_FOLDERS, "rows", "checksums")] + _checkpoints(config.run)
    folders += [] if (config.run / "run.json").exists() else [config.run]
    for path in sorted(path for folder in folders for path in folder.rglob("*")):
        state = path.lstat()
        digest.update(f"{path.relative_to(config.run)} {state.st_size} {state.st_mtime_ns}\n".encode())
    return {"run": digest.hexdigest()}


def main(config: Config, world: World, checked: None) -> None:
    job = (read_run(config.run) or {}).get("job")
    names = _shards(config.run) if job is None else sorted(finished(config.run), key=int)
    names = names[: config.limit]
    units = plan_units(len(names), config.unit_size)
    with Ledger.of(config, units, world) as ledger:
        for unit in ledger.claims():
            with ledger.working(unit):
                part = ledger.counted(names[unit.start : unit.stop])
                if job is None:
                    rows = [_check_traces(config, {"unit": name, "key": [name], "shard": name}) for name in part]
                else:
                    rows = [row for name in part for row in _check_rows(config.run, name)]
                    if job in _TRACES:
                        rows = [_check_traces(config, row) if _is_shard(row) else row for row in rows]
                ledger.complete(unit, rows)
    if count(config.out, len(units)).done == len(units):
        _report(config)


def _shards(folder: Path) -> list[str]:
    """The shards of a folder that is no run, by their paths in it."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.tar") if path.name[0] != ".")


def _is_shard(row: Mapping[str, Any]) -> bool:
    """Whether a row is about a shard that is whole."""
    return _file(row).endswith(".tar") and row["problem"] == ""


def _check_traces(config: Config, row: Mapping[str, Any]) -> dict[str, Any]:
    """The row, and what is found in the traces of its shard."""
    from genloop.data.irg.verify import verify_shard

    try:
        return {**row, "problem": "", **verify_shard(config.run / _file(row), pixels=config.pixels)}
    except (ValueError, OSError) as error:
        return {**row, "problem": f"unreadable ({one_line(error)})"}


def _check_rows(run: Path, name: str) -> list[dict[str, Any]]:
    source = f"rows/{name}.jsonl"
    problem: str | None = "empty"
    try:
        lines = read_bytes(run / source).splitlines()  # of bytes: a prompt may hold other line separators
    except (OSError, ValueError):
        lines, problem = [], "unreadable"
    found: list[dict[str, Any]] = [] if lines else [{"unit": name, "key": [], "image": source, "problem": problem}]
    for line in lines:
        try:
            row = json_object(line)
            what = "shard" if "shard" in row else "image"
            file = check_inside(f"shards/{row[what]}" if what == "shard" else row.get(what, source))
        except ValueError:
            found.append({"unit": name, "key": [], "image": source, "problem": "unreadable"})
            continue
        numbers = row.get("prompt_index"), row.get("sample")
        key = [file] if what == "shard" else [] if None in numbers else list(numbers)
        problem = _problem(run / file, row["sha256"]) if "sha256" in row else None  # a verdict has no file of its own
        found.append({"unit": name, "key": key, what: file, "problem": problem})
    return found + _check_others(run, name, {_file(row) for row in found if row["problem"] is not None})


def _check_others(run: Path, name: str, seen: Collection[str]) -> list[dict[str, Any]]:
    """Rows about the files of a unit that its rows do not name; of a run without checksums none."""
    source = f"checksums/{name}"
    if not (run / "checksums").is_dir():
        return []
    try:
        lines = read_utf8(run / source).splitlines()
        recorded = {check_inside(file): sha256 for sha256, file in (line.split("  ", 1) for line in lines)}
    except (OSError, ValueError):
        problem = "unreadable" if (run / source).exists() else "missing"
        return [{"unit": name, "key": [], "file": source, "problem": problem}]
    others = {file: sha256 for file, sha256 in recorded.items() if file not in seen}
    rows = {file: _problem(run / file, sha256) for file, sha256 in others.items()}
    return [{"unit": name, "key": [], "file": file, "problem": problem} for file, problem in rows.items()]


def _problem(path: Path, digest: str) -> str:
    try:
        if not (is_there(path) if is_member(path) else path.exists()):
            return "missing"
        if is_member(path):
            return "" if hashlib.sha256(read_any(path)).hexdigest() == digest else "changed"
        return "" if sha256_file(regular_file(path)) == digest else "changed"
    except (OSError, ValueError):
        return "unreadable"


def _strangers(run: Path, known: Collection[str]) -> list[str]:
    """Files that nothing was recorded about; those beside shards are their indices, and of older runs none is told."""
    if not (run / "checksums").is_dir():
        return []
    files = (file for name in _FOLDERS if (run / name).is_dir() for file in files_below(run / name))
    names = (file.relative_to(run).as_posix() for file in files)
    return sorted(n for n in names if n not in known and not (n.startswith("shards/") and not n.endswith(".tar")))


def _concluded(run: Path) -> dict[str, str]:
    """{shard that was written when all units were done: sha256}"""
    path = run / "summary.json"
    rows = (object_or_empty(read_bytes(path)) if path.is_file() else {}).get("shards")
    return {check_inside(f"shards/{row['shard']}"): row["sha256"] for row in rows} if isinstance(rows, list) else {}


def _report(config: Config) -> None:
    """Print what was found; raise when it is not clean."""
    rows = list(read_rows(config.out))
    doubled = [key for key, n in collections.Counter(tuple(row["key"]) for row in rows).items() if key and n > 1]
    bad = [f"{_file(row)} {row['problem']}" for row in rows if row["problem"]]
    folders = [] if config.limit else _checkpoints(config.run)
    for folder in folders:
        try:
            verify_folder(folder)
        except (ValueError, OSError) as error:
            bad.append(one_line(error))
    is_run = (config.run / "run.json").exists()
    left = 0 if config.limit or not is_run else plan_of(config.run).get("units", 0) - len(finished(config.run))
    if not config.limit and not left:
        concluded = _concluded(config.run)
        problems = ((name, _problem(config.run / name, sha256)) for name, sha256 in concluded.items())
        bad += [f"{name} {problem}" for name, problem in problems if problem]
        bad += [f"{name} unknown" for name in _strangers(config.run, {_file(row) for row in rows} | concluded.keys())]
    files = sum(row["problem"] is not None for row in rows)
    num_rows = sum("file" not in row for row in rows)
    terminal.out(
        f"{config.run}: {num_rows} rows, {files} files and {len(folders)} checkpoints checked, "
        f"{len(bad)} bad, {len(doubled)} doubled, {left} units unfinished"
    )
    bad += _traces(rows)
    if bad or doubled or left:
        listed = bad[:5] + [f"doubled {key}" for key in doubled[:5]]
        raise RunFailed(f"{config.run} is not clean: {'; '.join(listed) or f'{left} units unfinished'}")


def _traces(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Print what was found in traces, by kind -> the first fault of each kind."""
    from genloop.data.irg.verify import UNREAD

    checked = [row for row in rows if "traces" in row]
    if not checked:
        return []
    counts: collections.Counter[str] = collections.Counter()
    examples: dict[str, str] = {}
    for row in checked:
        counts.update(row["problems"])
        examples = {kind: f"{_file(row)}: {text}" for kind, text in row["examples"].items()} | examples
    faults = {kind: number for kind, number in sorted(counts.items()) if kind != UNREAD}
    listed = ", ".join(f"{number} {kind}" for kind, number in faults.items()) or "no problems"
    unread = f"; {counts[UNREAD]} texts of others were not understood, as {examples[UNREAD]}" if counts[UNREAD] else ""
    terminal.out(f"{sum(row['traces'] for row in checked)} traces read: {listed}{unread}")
    return [f"{kind}: {examples[kind]}" for kind in faults]


def _file(row: Mapping[str, Any]) -> str:
    return str(row.get("image") or row.get("shard") or row["file"])


def _checkpoints(run: Path) -> list[Path]:
    return sorted(path.parent for path in run.rglob(MANIFEST_FILE))


if __name__ == "__main__":
    run_job(main, Config)
