"""A finished run of `generate` as data: its prompts as the generator read them, and the rows of each."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genloop.data.prompts import Text, parse_metadata, read_object
from genloop.ledger import read_rows, unsettled
from genloop.records import Prompt
from genloop.rundir import read_run

_NEEDED = {"prompt_index", "sample", "candidates"}


@dataclass(frozen=True)
class GeneratedRun:
    """What a run made, and from what: its fingerprint's digest, and the sha256 of each of its inputs."""

    folder: Path
    digest: str
    inputs: dict[str, str]
    prompts: list[Prompt]
    rows: dict[int, list[dict[str, Any]]]  # prompt index -> its images


def read_generated(folder: Path, limit: int | None = None) -> GeneratedRun:
    """The first `limit` prompts of a finished run of generate; ValueError for any other folder."""
    mark = read_run(folder)
    if mark is None or mark["job"] != "generate":
        what = "no run folder (no run.json)" if mark is None else f"a run of {mark['job']}"
        raise ValueError(f"source: {folder} is {what}, not a run of generate")
    left = unsettled(folder)
    if left or not (folder / "plan.json").is_file():
        raise ValueError(f"source: {folder} is not finished ({left} units left); finish it first")
    rows: dict[int, list[dict[str, Any]]] = {}
    for row in read_rows(folder):
        if missing := _NEEDED - row.keys():
            raise ValueError(f"source: a row of {folder} has no {sorted(missing)[0]}; generate the run again")
        rows.setdefault(row["prompt_index"], []).append(row)
    text: Text = mark["keys"].get("text", "prompt")
    prompts = [_prompt(folder, index, text) for index in sorted(rows)[:limit]]
    return GeneratedRun(folder, mark["digest"], mark["inputs"], prompts, rows)


def _prompt(folder: Path, index: int, text: Text) -> Prompt:
    path = folder / f"images/{index:05d}/metadata.jsonl"
    row = read_object(path)
    return parse_metadata(row, index, where=str(path), text=text) if "tag" in row else Prompt(index, row["prompt"])
