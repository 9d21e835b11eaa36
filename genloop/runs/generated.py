"""Runs of `generate`: their rows in order, a finished run as data, and the run around a folder of images."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genloop.data.members import is_member, read_any
from genloop.data.pictures import has_shards
from genloop.data.prompts import Text, parse_metadata
from genloop.ledger import finished, plan_of, unsettled
from genloop.reading import parse_json, read_json
from genloop.records import Prompt
from genloop.rundir import RunError, read_run
from genloop.runs.rows import GeneratedRow, read_images


DRAWING_JOBS = ("generate", "edit")  # whose runs hold images and rows of this kind


def read_generated(run: Path) -> Iterator[GeneratedRow]:
    """The rows of the finished units of a run of generate, in order; errors of `read_images`."""
    return read_images(run, GeneratedRow)


def check_generated(run: Path, key: str) -> dict[str, Any]:
    """The fingerprint of a finished run of generate; ValueError that begins with the config key for anything else."""
    found = read_run(run)
    if found is None:
        raise ValueError(f"{key}: {run} is not a run folder (it has no run.json); name a run of generate")
    if found["job"] != "generate":
        raise ValueError(f"{key}: {run} is a run of {found['job']}, not of generate")
    left = unsettled(run)
    if left or not finished(run):
        raise ValueError(f"{key}: {run} is unfinished ({left} units are left); finish it first")
    return found


@dataclass(frozen=True)
class GeneratedRun:
    """What a run made, and from what: its fingerprint's digest and config, and the sha256 of each of its inputs."""

    folder: Path
    digest: str
    keys: dict[str, Any]  # its config as dotted keys, without launch settings
    inputs: dict[str, str]
    prompts: list[Prompt]
    rows: dict[int, list[GeneratedRow]]  # prompt index -> its images


def read_generated_run(folder: Path, limit: int | None = None) -> GeneratedRun:
    """The first `limit` prompts of a finished run of generate with image tokens; errors of `check_generated`."""
    fingerprint = check_generated(folder, "source")
    rows: dict[int, list[GeneratedRow]] = {}
    for row in read_generated(folder):
        if not row.tokens:
            raise ValueError(f"source: {folder} was drawn by a diffusion model, its rows hold no image tokens")
        rows.setdefault(row.prompt_index, []).append(row)
    text: Text = fingerprint["keys"].get("text", "prompt")
    prompts = [prompt_of(folder, rows[index][0], text) for index in sorted(rows)[:limit]]
    return GeneratedRun(folder, fingerprint["digest"], fingerprint["keys"], fingerprint["inputs"], prompts, rows)


def image_folder(run: Path) -> Path:
    """Where a run of `generate` keeps its images: its shards, or the folder in GenEval's layout; else `run` itself."""
    if not (run / "run.json").is_file():
        return run
    return run / "shards" if has_shards(run / "shards") else run / "images"


def metadata_of(run: Path, row: GeneratedRow) -> tuple[str, Any]:
    """Where the metadata of a row's prompt stands, and what it is."""
    image = run / row.image
    if not is_member(image):
        path = image.parent.parent / "metadata.jsonl"
        return f"{path}", read_json(path)
    where = f"{image.with_suffix('.json')}"
    made = parse_json(read_any(image.with_suffix(".json")), where)
    return where, made.get("metadata") if isinstance(made, dict) else None


def prompt_of(folder: Path, row: GeneratedRow, text: Text = "prompt") -> Prompt:
    """The prompt of a row, with its metadata where the run has any."""
    where, metadata = metadata_of(folder, row)
    if isinstance(metadata, dict) and "tag" not in metadata and isinstance(metadata.get("prompt"), str):
        return Prompt(row.prompt_index, metadata["prompt"])
    return parse_metadata(metadata, row.prompt_index, where=where, text=text)


def units_to_make(images: Path) -> int:
    """How many units the run of `generate` around a folder of images still lacks, be they open or failed."""
    run = images.resolve().parent
    planned = plan_of(run).get("units", 0) if generate_fingerprint(images) else 0
    return max(0, planned - len(finished(run)))


def generate_fingerprint(images: Path) -> dict[str, Any] | None:
    """The fingerprint of the run of `generate` around a folder of images."""
    try:
        found = read_run(images.resolve().parent)
    except RunError:
        return None  # some other program's run.json
    return found if found and found["job"] in DRAWING_JOBS else None
