"""The datasheet of a judge's examples: what they are, how they were labelled and split, how many there are of each."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from genloop.data.judge.examples import QUESTIONS, SPLITS, JudgeExample, RankingPair
from genloop.records import TAGS

Counts = dict[str, dict[str, list[float]]]  # row name -> column name -> [how many, sum of labels]


@dataclass
class Tally:
    """Counts of one side of the split, by question and task and by question and step; rows are filled as they come."""

    images: int = 0
    sentences: set[str] = field(default_factory=set)
    by_task: Counts = field(default_factory=lambda: defaultdict(lambda: defaultdict(lambda: [0, 0.0])))
    by_step: Counts = field(default_factory=lambda: defaultdict(lambda: defaultdict(lambda: [0, 0.0])))
    reasons: int = 0

    def add(self, example: JudgeExample) -> None:
        self.images += 1
        self.sentences.add(example.prompt.text)
        self.reasons += bool(example.reason)
        for question, label in example.questions.items():
            name = question if example.source == "generate" else f"{question} ({example.source})"
            for cell in (self.by_task[name][example.prompt.tag or ""], self.by_step[name][example.moment]):
                cell[0] += 1
                cell[1] += label

    def plain(self) -> dict[str, Any]:
        """{"images", "sentences", "reasons", "by_task", "by_step"}: {question: {task or step: {"n", "yes"}}}."""
        tables = {
            name: {
                row: {column: {"n": int(n), "yes": round(total / n, 4)} for column, (n, total) in cells.items()}
                for row, cells in counts.items()
            }
            for name, counts in (("by_task", self.by_task), ("by_step", self.by_step))
        }
        return {"images": self.images, "sentences": len(self.sentences), "reasons": self.reasons, **tables}


def tally(examples: Mapping[str, Iterable[JudgeExample]]) -> dict[str, Tally]:
    """Split -> its counts."""
    found = {split: Tally() for split in SPLITS}
    for split, members in examples.items():
        for example in members:
            found[split].add(example)
    return found


def datasheet(
    sections: Mapping[str, Sequence[str]], tallies: Mapping[str, Tally], pairs: Mapping[str, Sequence[RankingPair]]
) -> str:
    """Markdown: the sections (heading -> lines), then tables of the counts."""
    parts = ["# Examples for a judge", ""]
    for heading, lines in sections.items():
        parts += [f"## {heading}", *lines, ""]
    parts += ["## Counts", *_totals(tallies), ""]
    for split, counts in tallies.items():
        tags = [tag for tag in (*TAGS, "") if any(tag in row for row in counts.by_task.values())]
        steps = sorted({s for row in counts.by_step.values() for s in row}, key=_step_order)
        parts += [f"### {split}: labels by task", *_table(counts.by_task, tags), ""]
        parts += [f"### {split}: labels by step", *_table(counts.by_step, steps), ""]
        parts += [f"### {split}: ranking pairs by task", *_pairs_table(pairs[split]), ""]
    return "\n".join(parts).rstrip() + "\n"


def about_paths(
    *, digest: str, settings: Mapping[str, Any], weights: Mapping[str, str], left_out: int
) -> dict[str, list[str]]:
    """Where generated images come from; `weights` maps a checkpoint's name to its licence."""
    lines = [
        f"Every candidate of a run of generate with the fingerprint `{digest}`, replayed from its seed to the end."
    ]
    lines += [f"- {name}: `{json.dumps(value)}`" for name, value in settings.items()]
    lines += [f"- weights `{name}`, licence: {licence}" for name, licence in weights.items()]
    return {"Generated images": [*lines, f"- candidates left out because they go on from others: {left_out}"]}


def about_labels(judged_by: str, completions: int, threshold: float | None) -> dict[str, list[str]]:
    """How generated images were labelled."""
    hard = "" if threshold is None else f", as 1 from {threshold} on, else 0"
    return {
        "Labels": [
            f"By detector {judged_by}.",
            "- outcome of a final image: whether it is right",
            f"- potential of a preview: the share of {completions} continuations from there that end right; the first "
            "is the path itself",
            f"- clarity of a preview: the share of those continuations whose verdict the preview already has{hard}",
            "- reason: what is wrong with the image, in words derived from the verdict",
        ]
    }


def about_scenes(num_scenes: int, spoilt: float) -> dict[str, list[str]]:
    """What drawn scenes are."""
    return {
        "Drawn scenes": [
            f"{num_scenes} scenes of the embedded world, in pairs whose sentences differ in one slot. Each of the two",
            "sentences is asked about both scenes where training may name it; labels are exact, by the same rules.",
            f"A share of {spoilt} is spoilt as generated images are: up to three cells show something else.",
            "Every cell has the names of its shape and its colour. Drawn by this project, licence: Apache-2.0.",
        ]
    }


def about_split(seed: int, val_share: float, max_pairs: int) -> dict[str, list[str]]:
    """How examples are split and pairs balanced."""
    return {
        "Split and balance": [
            f"- A sentence is in val when a hash of it and the seed {seed} is below {val_share}, scenes included.",
            "- Ranking pairs (pairs.jsonl) are images of one sentence at one step whose labels differ: of a sentence",
            f"  at most {max_pairs} for each question, then of every task as many as the task with the fewest has; a",
            "  hash of the pair decides which. Examples are not thinned out: training draws tasks in equal shares.",
        ]
    }


def _totals(tallies: Mapping[str, Tally]) -> list[str]:
    rows = ["| split | examples | sentences | with a reason |", "|---|---|---|---|"]
    return rows + [f"| {split} | {t.images} | {len(t.sentences)} | {t.reasons} |" for split, t in tallies.items()]


def _table(counts: Counts, columns: Sequence[str]) -> list[str]:
    """Rows are questions; a cell is how many and the share of yes."""
    if not columns:
        return ["none"]
    head = [
        "| question | " + " | ".join(column or "no task" for column in columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    return head + [
        f"| {row} | " + " | ".join(_cell(cells[column]) if column in cells else "" for column in columns) + " |"
        for row, cells in counts.items()
    ]


def _cell(count: Sequence[float]) -> str:
    return f"{int(count[0])} ({100 * count[1] / count[0]:.1f} % yes)"


def _pairs_table(pairs: Sequence[RankingPair]) -> list[str]:
    tags = [tag for tag in (*TAGS, None) if any(pair.tag == tag for pair in pairs)]
    if not tags:
        return ["none"]
    head = ["| question | " + " | ".join(tag or "no task" for tag in tags) + " |", "|---" * (len(tags) + 1) + "|"]
    questions = [question for question in QUESTIONS if any(pair.question == question for pair in pairs)]
    return head + [
        f"| {question} | "
        + " | ".join(str(sum(pair.tag == tag and pair.question == question for pair in pairs)) for tag in tags)
        + " |"
        for question in questions
    ]


def _step_order(step: str) -> tuple[int, str]:
    return (int(step), "") if step.isdecimal() else (1 << 30, step)
