"""Rows -> the score: our table with intervals, and the reference's result file and summary, byte for byte.

The overall score is the unweighted mean of the tasks that are present (Ghosh et al. 2023); an absent task is named.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from geneval.completeness import counted
from genloop.records import TAGS
from genloop.runs.rows import EvaluatedRow
from genloop.stats.nearness import WITHIN, Nearness, nearness
from genloop.stats.rates import MARKS, Kind, Rate, legend, rates

_ESCAPE = re.compile(r"\\(u007f|.)")  # pandas escapes what Python does, but for DEL


@dataclass(frozen=True, slots=True)
class TaskScore:
    """The images of one task; the interval treats prompts as clusters."""

    tag: str
    num_images: int
    num_correct: int
    num_prompts: int
    accuracy: Rate


@dataclass(frozen=True, slots=True)
class Summary:
    """An evaluation in numbers."""

    num_images: int
    num_correct: int
    num_prompts: int
    num_prompts_solved: int  # with at least one correct image
    images_per_prompt: tuple[int, int]  # fewest, most
    tasks: tuple[TaskScore, ...]  # in the order of TAGS, unknown ones last
    missing_tasks: tuple[str, ...]
    overall: Rate
    unreadable: tuple[str, ...]  # images that did not decode: counted as wrong
    near: Nearness | None  # decisions that a rounding could turn; None: the rows do not tell

    def to_json(self) -> dict[str, Any]:
        """The summary as plain values; accuracies as {"estimate", "low", "high", "method"}."""
        plain = asdict(self)
        plain["overall"] = self.overall.to_json()
        del plain["near"]
        plain["near_threshold"] = self.near and {"within": WITHIN, **self.near.to_json()}
        plain["tasks"] = [{**asdict(task), "accuracy": task.accuracy.to_json()} for task in self.tasks]
        return plain


def summarize(
    rows: Sequence[EvaluatedRow], *, unreadable: Sequence[str] = (), intervals: Kind = "bootstrap"
) -> Summary:
    """The numbers of an evaluation, with either kind of intervals. Raises ValueError without rows."""
    prompts = _by_prompt(rows)
    sizes = [len(found) for found in prompts.values()]
    near = [row.distance for row in rows if row.tells_distance]
    tags = [row.tag for row in rows]
    found = rates([float(row.correct) for row in rows], [_prompt_key(row) for row in rows], tags, kind=intervals)
    tasks = tuple(_task(tag, [row for row in rows if row.tag == tag], found.tasks[tag]) for tag in found.tasks)
    return Summary(
        num_images=len(rows),
        num_correct=sum(row.correct for row in rows),
        num_prompts=len(prompts),
        num_prompts_solved=sum(any(found) for found in prompts.values()),
        images_per_prompt=(min(sizes), max(sizes)),
        tasks=tasks,
        missing_tasks=tuple(tag for tag in TAGS if tag not in tags),
        overall=found.overall,
        unreadable=tuple(unreadable),
        near=nearness(near, [_prompt_key(row) for row in rows]) if len(near) == len(rows) else None,
    )


def format_table(summary: Summary) -> str:
    """The summary as lines of text: every accuracy with its 95 % interval and n."""
    lines = [f"{'task':<14} {'accuracy':>8}   {'95 % interval':<17} {'correct':>7} {'images':>6} {'prompts':>7}"]
    lines += [_line(t.tag, t.accuracy, t.num_correct, t.num_images, t.num_prompts) for t in summary.tasks]
    total = summary.num_correct, summary.num_images, summary.num_prompts
    lines.append(_line("overall", summary.overall, *total))
    solved = summary.num_prompts_solved / summary.num_prompts
    lines.append(f"overall is the mean of {counted(len(summary.tasks), 'task')}; ")
    lines[-1] += f"{solved:.1%} of prompts have a correct image ({summary.num_prompts_solved} of {summary.num_prompts})"
    lines.append(legend([summary.overall.method, *(task.accuracy.method for task in summary.tasks)]))
    if summary.near is not None:
        lines.append(f"decisions within {WITHIN} of a threshold: {summary.near}")
    if summary.missing_tasks:
        lines.append(f"no images of {', '.join(summary.missing_tasks)}: overall is not comparable with six tasks")
    fewest, most = summary.images_per_prompt
    if fewest != most:
        lines.append(f"prompts have between {fewest} and {most} images each")
    if summary.unreadable:
        shown = ", ".join(summary.unreadable[:5]) + (", ..." if len(summary.unreadable) > 5 else "")
        lines.append(f"{counted(len(summary.unreadable), 'image')} could not be read and counted as wrong: {shown}")
    return "\n".join(lines) + "\n"


def format_reference(rows: Sequence[EvaluatedRow]) -> str:
    """What the reference's summary prints for these rows, byte for byte. Raises ValueError without rows."""
    prompts = _by_prompt(rows)
    tasks: dict[str, list[bool]] = {}  # in order of first appearance
    for row in rows:
        tasks.setdefault(row.tag, []).append(row.correct)
    lines = [
        "Summary",
        "=======",
        f"Total images: {len(rows)}",
        f"Total prompts: {len(prompts)}",
        f"% correct images: {np.mean([row.correct for row in rows]):.2%}",
        f"% correct prompts: {np.mean([any(found) for found in prompts.values()]):.2%}",
        "",
        "Task breakdown",
        "==============",
        *(f"{tag:<16} = {np.mean(found):.2%} ({sum(found)} / {len(found)})" for tag, found in tasks.items()),
        "",
        f"Overall score (avg. over tasks): {np.mean([np.mean(found) for found in tasks.values()]):.5f}",
    ]
    return "\n".join(lines) + "\n"


def reference_line(row: EvaluatedRow, images: str) -> bytes:
    """Our row as a line of the reference's result file; `images` is the image folder as it was given."""
    values = {
        "filename": f"{images}{'' if images.endswith('/') else '/'}{row.image}",
        "tag": row.tag,
        "prompt": (row.metadata or {}).get("prompt", row.prompt),  # with the blanks around it
        "correct": row.correct,
        "reason": row.reason,
        "metadata": json.dumps(row.metadata),
        "details": json.dumps(row.details or {}),
    }
    text = json.dumps(values, separators=(",", ":")).replace("/", "\\/")
    return (_ESCAPE.sub(lambda found: "\x7f" if found[1] == "u007f" else found[0], text) + "\n").encode()


def _task(tag: str, rows: Sequence[EvaluatedRow], accuracy: Rate) -> TaskScore:
    prompts = {_prompt_key(row) for row in rows}
    return TaskScore(tag, len(rows), sum(row.correct for row in rows), len(prompts), accuracy)


def _by_prompt(rows: Sequence[EvaluatedRow]) -> dict[str, list[bool]]:
    """Equal metadata is one prompt, in whatever folder: {metadata: [correct, ...]}."""
    if not rows:
        raise ValueError("no rows to summarize: nothing was evaluated")
    prompts: dict[str, list[bool]] = {}
    for row in rows:
        prompts.setdefault(_prompt_key(row), []).append(row.correct)
    return prompts


def _prompt_key(row: EvaluatedRow) -> str:
    return json.dumps(row.metadata)


def _line(name: str, accuracy: Rate, correct: int, images: int, prompts: int) -> str:
    found = accuracy.interval
    interval = f"{found.low:.1%} .. {found.high:.1%}{MARKS[accuracy.method]}"
    return f"{name:<14} {found.estimate:>8.1%}   {interval:<17} {correct:>7} {images:>6} {prompts:>7}"
