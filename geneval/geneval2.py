"""GenEval 2 (Kamath et al. 2025): Soft-TIFA, the probability that a judge gives to the right answers about an image.

Its prompts are published under CC BY-NC 4.0 and are not part of genloop: `metrics.geneval2.file` names your copy, JSON
lines {"prompt", "atom_count", "vqa_list": [[question, answer], ...], "skills": [one a question]}. AM is the mean over a
prompt's questions, GM their geometric mean; both are averaged over prompts. Skills are compared by AM, numbers of atoms
by GM, as published.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import AfterValidator, Field

from genloop.config import InputPath, Settings
from genloop.metrics.makers import ANY_QUESTION, Line, ScoreMaker, Tools
from genloop.metrics.scores import batches_of_one_size, mean_line
from genloop.protocols import Asker
from genloop.reading import parse_json, read_utf8
from genloop.records import Prompt
from genloop.stats.resampling import drawn_mean

QUESTION = "{question}"
_YES = "yes"
_AT_A_TIME = 32  # questions put in one call, each with its own copy of the image


@dataclass(frozen=True, slots=True)
class Atoms:
    """What is asked about the images of one prompt: a question, its right answer and its skill each."""

    prompt: str
    atom_count: int  # as the file has it; questions about "a" are asked but not counted there
    questions: tuple[str, ...]
    answers: tuple[str, ...]
    skills: tuple[str, ...]


def _has_question(template: str) -> str:
    if QUESTION not in template:
        raise ValueError(f"does not mention {QUESTION}")
    return template


class SoftTifaOptions(Settings):
    """Keys of `metrics.geneval2`."""

    file: InputPath = Field(description="your copy of GenEval 2's prompts, JSON lines")
    template: Annotated[str, AfterValidator(_has_question)] = Field(
        "{question} Answer in one word.", description="how a question is put"
    )


class SoftTifa(ScoreMaker):
    """Asks the job's judge every question about every image."""

    Options = SoftTifaOptions
    needs = frozenset({"prompt", "judge"})

    @classmethod
    def check_prompts(cls, options: SoftTifaOptions, prompts: Sequence[Prompt]) -> None:
        """The file, and that it has every prompt."""
        known = read_atoms(options.file)
        if missing := [prompt for prompt in prompts if prompt.text not in known]:
            raise ValueError(
                f"{options.file}: has no prompt {missing[0].text!r} (and {len(missing) - 1} more images); "
                "the images must be made from the prompts of this file"
            )

    @classmethod
    def questions(cls, options: SoftTifaOptions) -> tuple[str, ...]:
        return (ANY_QUESTION,)

    @classmethod
    def load(cls, options: SoftTifaOptions, tools: Tools) -> "SoftTifaScorer":
        judge: Any = tools.judge()
        return SoftTifaScorer(judge, read_atoms(options.file), options.template)

    @classmethod
    def conclude(cls, options: SoftTifaOptions, name: str, rows: Sequence[Mapping[str, Any]], seed: int) -> list[Line]:
        """AM and GM, AM by skill, GM by number of atoms."""
        return soft_tifa_lines(read_atoms(options.file), name, rows, seed)


class SoftTifaScorer:
    """P of the right answer to each question."""

    def __init__(self, judge: Asker, atoms: Mapping[str, Atoms], template: str) -> None:
        self.judge, self.atoms, self.template = judge, atoms, template

    def scores(self, prompts: Sequence[Prompt], images: Sequence[np.ndarray]) -> list[list[float | None]]:
        """One prompt per image (H, W, 3) uint8 -> P(right answer) to each question about it, None without an answer."""
        found: list[list[float | None]] = [[] for _ in images]
        for places, batch in batches_of_one_size(images):
            asked = [
                (place, row) for row, place in enumerate(places) for _ in self.atoms[prompts[place].text].questions
            ]
            pairs = [pair for place in places for pair in self._pairs(prompts[place])]
            shares = self._ask(pairs, batch, [row for _, row in asked])
            for (place, _), p in zip(asked, shares, strict=True):
                found[place].append(None if math.isnan(p) else p)
        return found

    def _pairs(self, prompt: Prompt) -> list[tuple[str, str]]:
        atoms = self.atoms[prompt.text]
        return [(self.template.replace(QUESTION, q), a) for q, a in zip(atoms.questions, atoms.answers)]

    def _ask(self, pairs: Sequence[tuple[str, str]], images: Any, rows: Sequence[int]) -> list[float]:
        """Questions with answers, each about the image (3, H, W) of a row -> P(answer); those of yes together."""
        found = [math.nan] * len(pairs)
        for is_yes in (True, False):
            chosen = [i for i, (_, answer) in enumerate(pairs) if (answer.strip().lower() == _YES) == is_yes]
            for part in (chosen[start : start + _AT_A_TIME] for start in range(0, len(chosen), _AT_A_TIME)):
                texts, shown = [pairs[i][0] for i in part], images[[rows[i] for i in part]]
                answers = [pairs[i][1] for i in part]
                p = self.judge.p_yes_to(texts, shown) if is_yes else self.judge.p_answer_to(texts, answers, shown)
                for i, value in zip(part, p.tolist()):
                    found[i] = value
        return found


def read_atoms(path: Path) -> dict[str, Atoms]:
    """{prompt: what is asked about it}; ValueError names file and line of what is not as it should be."""
    found: dict[str, Atoms] = {}
    for number, line in enumerate(read_utf8(path).rstrip().split("\n"), 1):
        atoms = _parse(parse_json(line, f"{path}:{number}", once=True), f"{path}:{number}")
        if found.setdefault(atoms.prompt, atoms) != atoms:
            raise ValueError(f"{path}:{number}: prompt {atoms.prompt!r} again, with other questions")
    return found


def soft_tifa_lines(atoms: Mapping[str, Atoms], name: str, rows: Sequence[Mapping[str, Any]], seed: int) -> list[Line]:
    """Rows with {"prompt", "prompt_index", "scores": {name: [P of each question]}} -> the numbers to report.

    An image with an unanswered question has neither AM nor GM.
    """
    means = [_mean(row["scores"][name]) for row in rows]
    roots = [_geometric_mean(row["scores"][name]) for row in rows]
    lines = [mean_line(f"{name} AM", rows, means, seed), mean_line(f"{name} GM", rows, roots, seed)]
    skills: dict[str, list[tuple[float, int]]] = {}
    for row in rows:
        for skill, p in zip(atoms[row["prompt"]].skills, row["scores"][name] or ()):
            if p is not None:
                skills.setdefault(skill, []).append((p, row["prompt_index"]))
    for skill in sorted(skills):
        values, clusters = zip(*skills[skill])
        interval = drawn_mean(values, clusters, seed)
        lines.append(Line(f"{name} AM {skill}", *interval, len(values), f"questions; {len(set(clusters))} prompts"))
    counts = sorted({atoms[row["prompt"]].atom_count for row in rows})
    for count in counts:
        chosen = [place for place, row in enumerate(rows) if atoms[row["prompt"]].atom_count == count]
        lines.append(mean_line(f"{name} GM {count} atoms", [rows[i] for i in chosen], [roots[i] for i in chosen], seed))
    return lines


def _mean(shares: Sequence[float | None] | None) -> float | None:
    known = [p for p in shares or () if p is not None]
    return math.fsum(known) / len(known) if shares and len(known) == len(shares) else None


def _geometric_mean(shares: Sequence[float | None] | None) -> float | None:
    known = [p for p in shares or () if p is not None]
    if not shares or len(known) != len(shares):
        return None
    return math.exp(math.fsum(map(math.log, known)) / len(known)) if min(known) > 0 else 0.0


def _parse(row: Any, where: str) -> Atoms:
    if not isinstance(row, Mapping):
        raise ValueError(f"{where}: expected a JSON object")
    if missing := [key for key in ("prompt", "atom_count", "vqa_list", "skills") if key not in row]:
        raise ValueError(f"{where}: {missing[0]} is missing; expected GenEval 2's prompt, atom_count, vqa_list, skills")
    prompt, count, asked, skills = (row[key] for key in ("prompt", "atom_count", "vqa_list", "skills"))
    if not isinstance(prompt, str) or not prompt.strip():
        raise ValueError(f"{where}: prompt must be a text, found {prompt!r}")
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise ValueError(f"{where}: atom_count must be an integer of at least 1, found {count!r}")
    if not isinstance(asked, list) or not asked or not all(_is_texts(pair, 2) for pair in asked):
        raise ValueError(f"{where}: vqa_list must be a list of [question, answer], found {str(asked)[:60]}")
    if not isinstance(skills, list) or not _is_texts(skills, len(asked)):
        raise ValueError(f"{where}: skills must name one for each of {len(asked)} questions, found {str(skills)[:60]}")
    questions, answers = zip(*asked)
    return Atoms(prompt.strip(), count, questions, answers, tuple(skills))


def _is_texts(value: Any, length: int) -> bool:
    return isinstance(value, list) and len(value) == length and all(isinstance(v, str) and v.strip() for v in value)
