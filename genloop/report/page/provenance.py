"""Provenance of runs as text: config, code, versions, hardware, hashes of inputs, time. Read from run folders."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from genloop import rundir
from genloop.reading import object_or_empty, read_bytes, read_object_or_empty, read_utf8
from genloop.report.runs import ReportedRun


@dataclass(frozen=True, slots=True)
class ProvenanceRecord:
    """One run folder: of evaluate, or of the generate run that made its images; `run` is None on a page of one run."""

    run: ReportedRun | None
    job: str
    name: str
    facts: tuple[tuple[str, str], ...]
    config: str


def records(runs: Sequence[ReportedRun]) -> list[ProvenanceRecord]:
    """Every folder that had a part in the runs, evaluations first."""
    folders = [(run, run.folder) for run in runs] + [(run, run.generate) for run in runs if run.generate]
    unique = {folder.resolve(): (run, folder) for run, folder in reversed(folders)}
    found = [_record(run, folder) for run, folder in folders if unique[folder.resolve()] == (run, folder)]
    return found if len(runs) > 1 else [replace(record, run=None) for record in found]


def facts_of(folder: Path) -> list[tuple[str, str]]:
    """Fingerprint, code, versions, hardware and inputs of any run."""
    fingerprint = rundir.read_run(folder) or {}
    facts = [("fingerprint", fingerprint.get("digest", "")), *_environment(folder), *_inputs(fingerprint)]
    return [(name, value) for name, value in facts if value]


def config_of(folder: Path) -> str:
    """The text of a run's config."""
    config = folder / "config.yaml"
    return read_utf8(config).rstrip() if config.is_file() else ""


def _record(run: ReportedRun, folder: Path) -> ProvenanceRecord:
    fingerprint = rundir.read_run(folder) or {}
    facts = [*facts_of(folder), *_card(folder), *_work(folder)]
    return ProvenanceRecord(
        run,
        fingerprint.get("job", ""),
        run.name if folder == run.folder else folder.resolve().name,
        tuple((name, value) for name, value in facts if value),
        config_of(folder),
    )


def _environment(folder: Path) -> Iterator[tuple[str, str]]:
    """The lines of env.json for a reader."""
    env = read_object_or_empty(folder / "env.json")
    git, cpu, packages = (_group(env.get(key)) for key in ("git", "cpu", "packages"))
    yield "code", f"{git.get('commit')}{' with local changes' if git.get('dirty') else ''}" if git else ""
    yield "genloop", str(env.get("genloop", ""))
    versions = {"python": env.get("python", ""), **packages}
    yield "versions", ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    yield "platform", str(env.get("platform", ""))
    yield "processor", f"{cpu.get('model')}, {cpu.get('cores')} cores, {cpu.get('memory_gib')} GiB" if cpu else ""
    for name, key, between in (("GPUs", "gpus", "; "), ("command", "command", " ")):
        yield name, between.join(map(str, env[key])) if isinstance(env.get(key), list) else ""
    yield "started", str(env.get("started", ""))


def _inputs(fingerprint: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, digest in fingerprint.get("inputs", {}).items():
        yield f"input {key}", str(digest)


def _card(folder: Path) -> Iterator[tuple[str, str]]:
    """How the images of an evaluation were made and judged, from its card: a line a group."""
    card = read_object_or_empty(folder / "card.json")
    for name in ("detector", "colors", "options", "canary", "images"):
        if group := _group(card.get(name)):
            yield f"regime {name}", ", ".join(f"{key} {_short(value)}" for key, value in group.items() if _says(value))


def _says(value: Any) -> bool:
    return value not in (None, {}, [])


def _short(value: Any) -> str:
    """A value of the card for a line; hashes by their beginnings."""
    if isinstance(value, Mapping):
        return "(" + ", ".join(f"{key} {_short(inner)}" for key, inner in value.items() if _says(inner)) + ")"
    if isinstance(value, list):
        return " / ".join("x".join(map(str, part)) if isinstance(part, list) else _short(part) for part in value)
    text = "yes" if value is True else "no" if value is False else str(value)
    return text[:12] if len(text) == 64 and not set(text) - set("0123456789abcdef") else text


def _work(folder: Path) -> Iterator[tuple[str, str]]:
    """What the workers did: sums of metrics.jsonl, and the time between the first start and the last heartbeat."""
    totals: dict[str, float] = {}
    for row in _lines(folder / "metrics.jsonl"):
        for name, value in row.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                totals[name] = totals.get(name, 0) + value
    yield "work", ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in totals.items())
    workers = [read_object_or_empty(path) for path in sorted((folder / "logs").glob("*.status.json"))]
    if workers:
        seconds = max(worker["updated"] for worker in workers) - min(worker["started"] for worker in workers)
        yield "time", f"{seconds:.0f} s from the first start to the last heartbeat, {len(workers)} workers"


def _group(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a JSON-lines file, without incomplete lines left by a kill or a full disk."""
    for line in read_bytes(path).splitlines() if path.is_file() else ():
        yield object_or_empty(line)
