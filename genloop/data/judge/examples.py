"""Examples to train a judge on: an image, its prompt, and the share of yes for each question; in WebDataset shards.

Fields of a sample: `png` the image, `json` an object with "source" (generate, scenes, conversations), "prompt" (GenEval
metadata, or {"prompt": text}), "prompt_index" (of a conversation: its place in the file), "sample", "candidate", "step"
(decoding steps done; -1: a preview of which nobody knows), "num_steps" (step == num_steps: the final image; both 0 for
a scene and for the final image of a conversation), "questions" {outcome | clarity | potential: label in [0, 1]},
"reason" (what is wrong in plain words, "" when nothing is or nobody said), and, for images of the embedded world,
`cells.npy` (rows, columns, 2) uint8: shape and colour of each cell, 0 for background, 255 where nobody knows, else 1 +
the index of the name in the object's "cells".

Prompts are split by their sentence, so a sentence that comes up twice is never on both sides.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from genloop.data.arrays import read_integers
from genloop.data.prompts import parse_metadata
from genloop.data.shards import Sample, npy_bytes
from genloop.reading import parse_json
from genloop.records import Prompt

QUESTIONS = ("outcome", "clarity", "potential")
SPLITS = ("train", "val")
CELL_NAMES = ("shapes", "colors")  # the two planes of `cells.npy`
UNKNOWN_STEP = -1  # of a preview: nobody knows after how many steps it was made
UNKNOWN = 255  # in `cells.npy`: nobody knows what the cell shows


@dataclass(frozen=True, slots=True)
class JudgeExample:
    """One image under one prompt; `questions` are soft labels, `cells` names the values of `cells.npy`."""

    key: str
    source: str
    prompt: Prompt
    sample: int
    candidate: int
    step: int
    num_steps: int
    questions: Mapping[str, float]
    reason: str = ""
    cells: Mapping[str, Sequence[str]] | None = None

    @property
    def is_final(self) -> bool:
        """Whether the image is the finished one."""
        return self.step == self.num_steps

    @property
    def moment(self) -> str:
        """What the image is: "scene", "final", "preview" (at an unknown step), or the steps it was made in."""
        if self.source == "scenes":
            return "scene"
        return "final" if self.is_final else "preview" if self.step == UNKNOWN_STEP else str(self.step)


@dataclass(frozen=True, slots=True)
class RankingPair:
    """Two images of one prompt at one step, the better one first, by their keys: a line of pairs.jsonl."""

    better: str
    worse: str
    question: str
    step: int
    tag: str | None
    prompt: str


def split_of(text: str, seed: int, val_share: float) -> str:
    """train or val: a function of the sentence and the seed alone."""
    return "val" if _uniform(f"{seed}/split/{text}") < val_share else "train"


def to_sample(example: JudgeExample, png: bytes, cells: np.ndarray | None = None) -> Sample:
    """The example as a sample of a shard; cells (rows, columns, 2) uint8."""
    row: dict[str, Any] = {
        "source": example.source,
        "prompt": example.prompt.metadata(),
        "prompt_index": example.prompt.index,
        "sample": example.sample,
        "candidate": example.candidate,
        "step": example.step,
        "num_steps": example.num_steps,
        "questions": dict(example.questions),
        "reason": example.reason,
    }
    fields = {"png": png}
    if cells is not None and example.cells is not None:
        row["cells"] = {name: list(values) for name, values in example.cells.items()}
        fields["cells.npy"] = npy_bytes(cells)
    return Sample(example.key, fields | {"json": json.dumps(row, ensure_ascii=False).encode()})


def from_sample(sample: Sample, shared: dict[str, Any] | None = None) -> JudgeExample:
    """The example that the json of a sample describes; ValueError names the sample and what is wrong with it.

    `shared` keeps prompts and names from sample to sample: many examples then hold one object.
    """
    if "json" not in sample.fields:
        raise ValueError(f"{sample.name} has {', '.join(sample.fields)}; a judge's example needs png and json")
    where = sample.name
    try:
        row = parse_json(sample.fields["json"])
        metadata, questions = row["prompt"], {str(q): float(p) for q, p in row["questions"].items()}
        numbers = {key: int(row[key]) for key in ("sample", "candidate", "step", "num_steps")}
        index, source, reason = int(row["prompt_index"]), str(row["source"]), str(row["reason"])
        cells, text = row.get("cells"), str(metadata["prompt"])
        if not isinstance(cells, dict | None) or not all(isinstance(names, list) for names in (cells or {}).values()):
            raise TypeError("cells must be lists of names")
        known = f"{index} {json.dumps(metadata)}", json.dumps(cells)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"{where}: json is not a judge's example ({type(error).__name__}: {error})") from None
    if unknown := [q for q in questions if q not in QUESTIONS]:
        raise ValueError(f"{where}: unknown question {unknown[0]!r} ({', '.join(QUESTIONS)})")
    if bad := [q for q, label in questions.items() if not 0 <= label <= 1]:
        raise ValueError(f"{where}: label of {bad[0]!r} must be in [0, 1], found {questions[bad[0]]}")
    shared = {} if shared is None else shared
    prompt = shared.get(known[0])
    if prompt is None:
        prompt = parse_metadata(metadata, index, where=where) if "tag" in metadata else Prompt(index, text)
    prompt, cells = shared.setdefault(known[0], prompt), shared.setdefault(known[1], cells)
    return JudgeExample(sample.key, source, prompt, questions=questions, reason=reason, cells=cells, **numbers)


def read_cells(sample: Sample) -> np.ndarray | None:
    """(rows, columns, 2) uint8 of a sample that has them."""
    if "cells.npy" not in sample.fields:
        return None
    return read_integers(sample, "cells.npy", (None, None, len(CELL_NAMES)), 256).astype(np.uint8)


def ranking_pairs(examples: Iterable[JudgeExample]) -> list[RankingPair]:
    """Every pair of images of one sentence at one step whose labels for a question differ.

    Previews at an unknown step are in no pair.
    """
    groups: dict[tuple[str, str, int], list[tuple[float, JudgeExample]]] = defaultdict(list)
    for example in examples:
        for question, label in example.questions.items() if example.step != UNKNOWN_STEP else ():
            groups[example.prompt.text, question, example.step].append((label, example))
    pairs = []
    for (text, question, step), members in groups.items():
        for label, example in members:
            pairs += [
                RankingPair(example.key, other.key, question, step, example.prompt.tag, text)
                for lower, other in members
                if label > lower
            ]
    return pairs


def balance(pairs: Sequence[RankingPair], seed: int, *, most: int) -> list[RankingPair]:
    """For each question as many pairs of every task as the task with the fewest has, at most `most` of each sentence.

    Which ones is decided by a keyed hash of the pair, so that it depends on nothing else; tasks without any pair are
    left out of the count. The order is that of `pairs`.
    """
    rank = {id(pair): _uniform(f"{seed}/pair/{pair.better}/{pair.worse}/{pair.question}") for pair in pairs}
    by_sentence: dict[tuple[str, str], list[RankingPair]] = defaultdict(list)
    for pair in pairs:
        by_sentence[pair.question, pair.prompt].append(pair)
    by_task: dict[str, dict[str | None, list[RankingPair]]] = defaultdict(lambda: defaultdict(list))
    for (question, _), members in by_sentence.items():
        for pair in sorted(members, key=lambda pair: rank[id(pair)])[:most]:
            by_task[question][pair.tag].append(pair)
    kept: set[int] = set()
    for tasks in by_task.values():
        fewest = min(map(len, tasks.values()))
        for members in tasks.values():
            kept |= {id(pair) for pair in sorted(members, key=lambda pair: rank[id(pair)])[:fewest]}
    return [pair for pair in pairs if id(pair) in kept]


def _uniform(text: str) -> float:
    """A number in [0, 1) that is a function of the text."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") / 2**64
