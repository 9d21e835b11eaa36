"""The rows of a run of `evaluate`, each of the form that comparisons and reports take for granted. No torch."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from genloop import ledger


class _Named(BaseModel):
    """The colours of one clause."""

    clause: int
    named: list[str]


class _Metadata(BaseModel):
    """What of a prompt's metadata is looked at; other keys are let be."""

    tag: str | None = None
    include: list[dict[str, Any]] = []
    exclude: list[dict[str, Any]] | None = None


class _Row(BaseModel):
    """What a row may say; docs/run-folder.md explains it. Rows of other tools say less."""

    prompt_index: Annotated[int, Field(ge=0)]
    sample: Annotated[int, Field(ge=0)]
    prompt: str
    tag: str
    correct: bool
    reason: str
    image: str = ""
    metadata: _Metadata | None = None
    details: dict[str, list[Annotated[list[float], Field(min_length=5, max_length=5)]]] = {}
    areas: dict[str, list[int | None]] = {}
    masks: dict[str, list[str | None]] = {}
    colors: list[_Named] = []
    distance: float | None = None


def read_verdicts(run: Path) -> Iterator[dict[str, Any]]:
    """The rows of the finished units of a run of evaluate, in order; ValueError in one line for rows of another form,
    two of one image, and a run that is over with fewer or more rows than it has images.
    """
    seen: set[tuple[int, int]] = set()
    for name in sorted(ledger.finished(run), key=int):
        for number, row in enumerate(ledger.rows_of_unit(run, name), start=1):
            where = f"{run / 'rows' / name}.jsonl:{number}"
            check_verdict(row, where)
            place = row["prompt_index"], row["sample"]
            if place in seen:
                raise ValueError(
                    f"{where}: a second row of prompt {place[0]}, sample {place[1]}; run `verify` on {run}"
                )
            seen.add(place)
            yield row
    plan = ledger.plan_of(run)
    if plan and len(ledger.finished(run)) >= plan["units"] and len(seen) != plan["items"]:
        raise ValueError(
            f"{run} holds {len(seen)} rows, not {plan['items']}; remove the files of rows/ that are short and evaluate "
            "again"
        )


def check_verdict(row: Mapping[str, Any], where: str) -> None:
    """ValueError, one line that `where` opens, for a row that is no verdict on an image."""
    try:
        found = _Row.model_validate(row, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        key, what = ".".join(map(str, first["loc"])), first["msg"]
        raise ValueError(f"{where}: not a verdict on an image ({key}: {what[:1].lower()}{what[1:]})") from None
    if found.metadata and found.metadata.tag not in (None, found.tag):
        raise ValueError(
            f"{where}: not a verdict on an image (tag is {found.tag!r}, its metadata's {found.metadata.tag!r})"
        )
