"""Rows of a run of `evaluate`, in order and each image once. No torch."""

from collections.abc import Iterator
from pathlib import Path

from genloop import ledger
from genloop.runs.rows import EvaluatedRow


def read_evaluated(run: Path) -> Iterator[EvaluatedRow]:
    """The rows of the finished units of a run of evaluate, in order; ValueError in one line for rows of another form,
    two of one image, and a run that is over with fewer or more rows than it has images.
    """
    seen: set[tuple[int, int]] = set()
    for name in sorted(ledger.finished(run), key=int):
        for number, row in enumerate(ledger.rows_of_unit(run, name, EvaluatedRow.from_json), start=1):
            place = row.prompt_index, row.sample
            if place in seen:
                raise ValueError(
                    f"{run / 'rows' / name}.jsonl:{number}: a second row of prompt {place[0]}, sample {place[1]}; run "
                    f"`verify` on {run}"
                )
            seen.add(place)
            yield row
    plan = ledger.plan_of(run)
    if plan and len(ledger.finished(run)) >= plan["units"] and len(seen) != plan["items"]:
        raise ValueError(
            f"{run} holds {len(seen)} rows, not {plan['items']}; remove the files of rows/ that are short and evaluate "
            "again"
        )
