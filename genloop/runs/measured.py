"""Rows of `measure_judges`: what a judge costs, on the machine that measured it."""

from pathlib import Path
from typing import Any

from pydantic import Field

from genloop.runs.lineage import job_of
from genloop.runs.rows import Number, RowPart, Size

MEASURES_JOB = "measure_judges"


class MeasuredJudge(RowPart):
    """One judge. Bytes and operations are of weights in memory and of one judged pair; None where a judge hides them."""

    judge: str
    what: dict[str, Any]  # kind, family, dtype, fingerprint
    compression: dict[str, Any] | None  # compression.json of its folder
    parameters: Number | None
    trained: Number | None  # parameters of the adapters that were given for it
    bytes_by_dtype: dict[str, Number]
    checkpoint_bytes: Number | None  # files of weights
    adapter_bytes: Number | None
    flops: float  # 2 a multiply-add
    seconds: tuple[float, ...] = Field(min_length=1)  # of each timed pair
    peak_memory: Number  # bytes, loading and one pair
    device: str
    threads: Size


def is_measuring(folder: Path) -> bool:
    """Whether a folder is a run of `measure_judges`."""
    return job_of(folder) == MEASURES_JOB
