"""The page of a run of any job, made of what lies in its folder: for jobs without a page of their own, and for runs
that failed before there was anything else to show.

One HTML file that needs nothing else, without a script; its bytes depend on the run folder alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from genloop import ledger
from genloop.failures import read_failures
from genloop.reading import object_or_empty, read_bytes, read_object_or_empty, read_utf8
from genloop.report.cards import Head, PictureCard
from genloop.report.files import record_of, write_files
from genloop.report.general.samples import sample_cards
from genloop.report.markup import markup_of
from genloop.report.rendering import as_link
from genloop.rundir import read_run
from genloop.stats.markdown import table_head, table_row

ROWS, CELL, FILES, FAILURES = 8, 160, 40, 20  # rows that are shown, letters of a cell, files and failures
_OWN = {"config.yaml", "env.json", "run.json", "plan.json", "done.json", "metrics.jsonl", "table.json"}
Table = dict[str, Any]  # title, head, rows


def write_general(folder: Path, out: Path) -> Path:
    """Write index.html, table.md and table.json -> the path of the page; ValueError while there is nothing to show."""
    texts = [read_utf8(path) for path in sorted(folder.glob("*.md"))]
    numbers = _numbers(folder)
    content = {**content_of(folder), "texts": [markup_of(text) for text in texts]}
    has_ended = bool(ledger.finished(folder)) or (folder / "done.json").is_file()
    if not has_ended and not content["failures"] and not content["notices"]:
        raise ValueError(f"{folder} has no finished unit yet, there is nothing to report")
    head = ("number", "value")
    cells = [list(row) for row in numbers.items()]
    content["tables"] = [{"title": "Numbers", "head": head, "rows": cells}] if numbers else []
    lines = [*table_head(head), *(table_row(row) for row in numbers.items())] if numbers else [content["lead"]]
    table = texts[0] if texts else "\n".join(lines) + "\n"
    return write_files(out, "general.html.j2", content, table=table, numbers=numbers)


def content_of(folder: Path) -> dict[str, Any]:
    """What the template shows of any run; pages of some jobs add to it."""
    job, name = (read_run(folder) or {}).get("job", ""), folder.resolve().name
    cards: Sequence[PictureCard] = sample_cards(folder)
    failures = list(failed_units(folder))
    return {
        "title": f"{job.replace('_', ' ').capitalize()}: {name}",
        "lead": _lead(folder, job),
        "notices": list(notices(folder)),
        "extremes": [("Samples", cards)] if cards else [],
        "pictures_lead": "The first of what the run wrote: a sample for the eye, not a measure.",
        "drawings": [(path.stem, as_link(read_bytes(path))) for path in sorted(folder.glob("*.svg"))],
        "heads": list(_heads(folder)),
        "failures": failures,
        "samples": [table for table in (_rows(folder), *map(_lines, sorted(folder.glob("*.txt")))) if table],
        "listing": list(_listing(folder)),
        "records": [record_of(folder)],
    }


def notices(folder: Path) -> Iterator[str]:
    """Why a worker of the run failed, where one did: its last start left that behind."""
    for failure in read_failures(folder / "logs")[:1]:
        yield f"Worker {failure.rank} failed: {failure.line}. Traceback: logs/worker-{failure.rank}.error.json."


def failed_units(folder: Path) -> Iterator[tuple[str, int, str]]:
    """Unit, attempts and reason of those that failed and are not done."""
    done = ledger.finished(folder)
    files = [path for path in sorted((folder / "failed").glob("*.json")) if path.stem not in done]
    for path in files[:FAILURES]:
        record = read_object_or_empty(path)
        yield path.stem, int(record.get("attempts", 1)), str(record.get("reason", "unknown"))


def _lead(folder: Path, job: str) -> str:
    plan = ledger.plan_of(folder)
    if not plan:
        over = "it came to its end" if (folder / "done.json").is_file() else "it has not come to its end"
        return f"A run of {job}: {over}."
    state = ledger.count(folder, plan["units"])
    if state.done == state.total:
        return f"A run of {job}: all {plan['units']} units are done, {plan['items']} items."
    failed = f", {state.failed} failed" if state.failed else ""
    return f"A run of {job}: {state.done} of {state.total} units are done{failed}."


def _heads(folder: Path) -> Iterator[Head]:
    plan = ledger.plan_of(folder)
    if plan:
        state = ledger.count(folder, plan["units"])
        yield Head("Units done", str(state.done), (f"of {state.total}", f"{state.failed} failed"))
        yield Head("Items", str(plan["items"]), ("in all units",))


def _numbers(folder: Path) -> dict[str, str]:
    """Single values of the JSON files that the run wrote, by their dotted names."""
    found: dict[str, str] = {}
    for path in sorted(folder.glob("*.json")):
        if path.name not in _OWN:
            found |= dict(_flat(read_object_or_empty(path), "" if path.stem == "summary" else f"{path.stem}."))
    return dict(list(found.items())[:200])


def _flat(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, str | int | float) and value is not None:
            text = f"{value:.6g}" if isinstance(value, float) else str(value)
            yield f"{prefix}{key}", text[:CELL]


def _rows(folder: Path) -> Table | None:
    """The first rows of the first finished unit; long values are cut."""
    names = sorted(ledger.finished(folder), key=int)
    if not names:
        return None
    lines = read_bytes(folder / "rows" / f"{names[0]}.jsonl").splitlines()[:ROWS]
    found = [object_or_empty(line) for line in lines]
    head = list(dict.fromkeys(key for row in found for key in row))
    cells = [[_cell(row.get(key)) for key in head] for row in found]
    return {"title": "The first rows", "head": head, "rows": cells} if found else None


def _lines(path: Path) -> Table:
    """The first lines of a file of prompts or of anything else that people read."""
    with open(path, encoding="utf-8", errors="replace") as file:
        found = [line.rstrip("\n")[:CELL] for line, _ in zip(file, range(ROWS))]
    rows = [[str(number), line] for number, line in enumerate(found, start=1)]
    return {"title": f"The first lines of {path.name}", "head": ("Line", "Text"), "rows": rows}


def _cell(value: Any) -> str:
    text = "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= CELL else f"{text[:CELL]}…"


def _listing(folder: Path) -> Iterator[list[str]]:
    """Files at the top of the run folder with their sizes, folders with how many files they hold."""
    for path in sorted(folder.iterdir())[:FILES]:
        if path.name in {"tmp", "leases"} or path.name.startswith((".", "report")):
            continue
        if path.is_dir():
            yield [f"{path.name}/", f"{sum(one.is_file() for one in path.rglob('*'))} files"]
        else:
            yield [path.name, f"{path.stat().st_size} bytes"]
