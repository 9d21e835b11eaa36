"""Prompts from a grammar or a file of others, split so that no combination of chosen slots is in two splits.

A grammar is templates with {slots} and the values of each slot. Combinations of the slots in `split_by` (breed x
environment) are shuffled, keyed by the seed, and dealt out to train, val and eval; each split then draws from its own
without replacement. No sentence appears twice, in one split or in two.
"""

import csv
import io
import itertools
import json
import math
import string
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from genloop.bounds import Share
from genloop.config import ADDED, Settings
from genloop.data.prompts import encode_prompts, left_out, read_texts
from genloop.reading import read_utf8
from genloop.records import Prompt
from genloop.registry import did_you_mean
from genloop.rundir import json_line, write_atomic

SPLITS = ("train", "val", "eval")
MAX_COMBINATIONS = 10**6
_MAX_PLACES = 2**62  # sentences that a grammar can tell apart by number
Slots = Mapping[str, str]


class Grammar(Settings):
    """Sentences with named gaps, and what goes into these."""

    templates: Annotated[list[str], Field(min_length=1)]
    slots: Annotated[dict[str, list[str]], Field(min_length=1)]

    def fields(self, template: str) -> list[str]:
        """The slots of a template, each once; ValueError for broken braces."""
        try:
            parts = [part for part in string.Formatter().parse(template) if part[1] is not None]
        except ValueError as error:
            raise ValueError(f"grammar.templates: {template!r}: {error}") from None
        if any(spec or conversion for _, _, spec, conversion in parts):
            raise ValueError(f"grammar.templates: {template!r}: a slot is written {{name}}, without ':' or '!'")
        return list(dict.fromkeys(str(name) for _, name, *_ in parts))

    def check(self, split_by: Sequence[str]) -> None:
        """ValueError in one line: a slot that is unknown, empty or repeats a value; a template that hides a split."""
        for name, values in self.slots.items():
            if not values:
                raise ValueError(f"grammar.slots.{name}: is empty; give it values or remove it")
            counts = Counter(values)
            if bad := [value for value in values if not value.strip() or counts[value] > 1]:
                raise ValueError(f"grammar.slots.{name}: {bad[0]!r} is blank or there twice")
        if not split_by or len(set(split_by)) < len(split_by):
            raise ValueError("split_by: name the slots whose combinations are kept apart, each once")
        for name in split_by:
            self._check_slot("split_by", name)
        for template in self.templates:
            found = self.fields(template)
            for name in found:
                self._check_slot(f"grammar.templates: {template!r}", name)
            if hidden := [name for name in split_by if name not in found]:
                raise ValueError(f"grammar.templates: {template!r} lacks {{{hidden[0]}}}, which split_by names")
        if math.prod(len(self.slots[name]) for name in split_by) > MAX_COMBINATIONS:
            raise ValueError(f"split_by: more than {MAX_COMBINATIONS} combinations; name fewer slots")
        if math.prod(map(len, self.slots.values())) > _MAX_PLACES:
            raise ValueError("grammar.slots: too many values, the sentences cannot be numbered; remove some")

    def _check_slot(self, where: str, name: str) -> None:
        if name not in self.slots:
            known = ", ".join(self.slots)
            raise ValueError(f"{where}: unknown slot {name!r}{did_you_mean(name, list(self.slots))} ({known})")


class Split(Settings):
    """Shares of the combinations, and of the prompts; they are divided by their sum. A share of 0 writes no file."""

    train: Annotated[Share, ADDED] = Field(0.8, description="for train.txt")
    val: Annotated[Share, ADDED] = Field(0.1, description="for val.txt")
    eval: Annotated[Share, ADDED] = Field(0.1, description="for eval.txt")

    def cut(self, number: int) -> dict[str, range]:
        """0..number-1 cut into one range a split, those without a share left out."""
        shares = {name: getattr(self, name) for name in SPLITS if getattr(self, name) > 0}
        if not shares:
            raise ValueError("shares: every share is 0; give train, val or eval a share")
        ends = np.cumsum(list(shares.values())) / sum(shares.values()) * number
        edges = [0, *(int(end + 0.5) for end in ends[:-1]), number]
        return {name: range(*edges[place : place + 2]) for place, name in enumerate(shares)}


@dataclass(frozen=True, slots=True)
class SplitPrompt:
    """One sentence, and what stands in its slots or columns."""

    text: str
    slots: Slots


Prompts = dict[str, list[SplitPrompt]]  # those of each split


def draw(grammar: Grammar, split_by: Sequence[str], split: Split, num_prompts: int, seed: int) -> Prompts:
    """At most `num_prompts` different sentences -> {split: its sentences}; ValueError when a split gets none."""
    grammar.check(split_by)
    combinations = list(itertools.product(*(grammar.slots[name] for name in split_by)))
    order = np.random.default_rng([seed, 0]).permutation(len(combinations)).tolist()
    wanted, seen = split.cut(num_prompts), set[str]()
    found: Prompts = {}
    for number, (name, part) in enumerate(split.cut(len(order)).items()):
        own = [dict(zip(split_by, combinations[order[place]])) for place in part]
        sentences = _sentences(grammar, own, np.random.default_rng([seed, 1, number]))
        found[name] = _first_new(sentences, len(wanted[name]), seen)
    return _none_empty(found, f"{num_prompts} prompts and {len(order)} combinations of {' x '.join(split_by)}")


def deal(rows: Sequence[SplitPrompt], split_by: Sequence[str], split: Split, seed: int) -> Prompts:
    """Given sentences, each once -> {split: its sentences, in their order}; without `split_by` each stands alone."""
    first: dict[str, SplitPrompt] = {}
    for row in rows:
        first.setdefault(row.text, row)
    rows = list(first.values())
    keys = [tuple(row.slots[name] for name in split_by) if split_by else (row.text,) for row in rows]
    combinations = list(dict.fromkeys(keys))
    order = np.random.default_rng([seed, 0]).permutation(len(combinations)).tolist()
    parts = split.cut(len(order)).items()
    split_of = {combinations[order[place]]: name for name, part in parts for place in part}
    found = {name: [row for row, key in zip(rows, keys) if split_of[key] == name] for name, _ in parts}
    return _none_empty(found, f"{len(order)} combinations of {' x '.join(split_by) or 'prompts'}")


def read_sentences(path: Path, column: str, split_by: Sequence[str]) -> list[SplitPrompt]:
    """A text file, one sentence a line, or a .csv or .tsv file with a header; ValueError names file and line."""
    if path.suffix not in (".csv", ".tsv"):
        if split_by:
            raise ValueError(f"split_by: {path} is a text file and has no columns; use a .csv file, or split_by=[]")
        return [SplitPrompt(text, {}) for text in read_texts(path)]
    reader = csv.DictReader(io.StringIO(read_utf8(path)), delimiter="\t" if path.suffix == ".tsv" else ",", strict=True)
    try:
        columns = list(reader.fieldnames or ())
        for key, name in (("column", column), *(("split_by", name) for name in split_by)):
            if name not in columns:
                raise ValueError(
                    f"{key}: {path} has no column {name!r}{did_you_mean(name, columns)} ({', '.join(columns)})"
                )
        found = [_sentence(row, column, f"{path}:{reader.line_num}") for row in reader]
    except csv.Error as error:
        raise ValueError(f"{path}:{reader.line_num}: no CSV: {error}") from None
    if not found:
        raise ValueError(f"{path}: no prompts in this file; write one a line below the header")
    return found


def without(prompts: Sequence[SplitPrompt], files: Iterable[Path]) -> list[SplitPrompt]:
    """Those whose sentences are in none of these prompt files; ValueError when none is left."""
    kept = left_out([Prompt(number, prompt.text) for number, prompt in enumerate(prompts)], files)
    texts = {prompt.text for prompt in kept}
    return [prompt for prompt in prompts if prompt.text in texts]


def write_splits(folder: Path, prompts: Prompts, split_by: Sequence[str]) -> None:
    """Write SPLIT.txt of each split, slots.jsonl and summary.json, each by an atomic rename."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in prompts.items():
        write_atomic(folder / f"{name}.txt", encode_prompts(Prompt(i, row.text) for i, row in enumerate(rows))[0])
    lines = ({"split": name, "prompt": row.text, "slots": row.slots} for name, rows in prompts.items() for row in rows)
    write_atomic(folder / "slots.jsonl", b"".join(map(json_line, lines)))
    summary = {name: _counts(rows, split_by) for name, rows in prompts.items()}
    write_atomic(folder / "summary.json", (json.dumps({"splits": summary}, indent=2) + "\n").encode())


def _counts(rows: Sequence[SplitPrompt], split_by: Sequence[str]) -> dict[str, Any]:
    """How many prompts and combinations, and how often each value of `split_by` is there."""
    combinations = {tuple(row.slots[name] for name in split_by) if split_by else row.text for row in rows}
    values = {name: dict(sorted(Counter(row.slots[name] for row in rows).items())) for name in split_by}
    return {"prompts": len(rows), "combinations": len(combinations), "values": values}


def _sentence(row: dict[str | None, str | None], column: str, where: str) -> SplitPrompt:
    if None in row or None in row.values():
        raise ValueError(f"{where}: not as many columns as the header has")
    slots = {str(name): " ".join(str(value).split()) for name, value in row.items()}
    text = slots.pop(column)
    if not text:
        raise ValueError(f"{where}: {column} is blank")
    return SplitPrompt(text, slots)


def _sentences(grammar: Grammar, combinations: Sequence[Slots], random: np.random.Generator) -> Iterator[SplitPrompt]:
    """Every sentence in a random order, in which combinations take turns, and in each of these the templates."""
    turns = []
    for combination in combinations:
        order = random.permutation(len(grammar.templates)).tolist()
        turns.append(_in_turn([_filled(grammar, grammar.templates[n], combination, random) for n in order]))
    return _in_turn(turns)


def _filled(grammar: Grammar, template: str, combination: Slots, random: np.random.Generator) -> Iterator[SplitPrompt]:
    """A template with everything that its other slots may hold."""
    used = grammar.fields(template)
    free = {name: grammar.slots[name] for name in used if name not in combination}
    sizes = list(map(len, free.values()))
    total = math.prod(sizes)
    start, stride = int(random.integers(total)), _coprime(random, total)

    def sentence(number: int) -> SplitPrompt:
        places = np.unravel_index((start + number * stride) % total, sizes) if sizes else ()
        slots = {**combination, **{name: free[name][int(place)] for name, place in zip(free, places)}}
        return SplitPrompt(" ".join(template.format(**slots).split()), {name: slots[name] for name in used})

    return map(sentence, range(total))


def _in_turn(iterators: Sequence[Iterator[SplitPrompt]]) -> Iterator[SplitPrompt]:
    """One of each, again and again, until all are at their ends."""
    left = list(iterators)
    while left:
        drawn = [(one, next(one, None)) for one in left]
        yield from (sentence for _, sentence in drawn if sentence is not None)
        left = [one for one, sentence in drawn if sentence is not None]


def _coprime(random: np.random.Generator, total: int) -> int:
    """A stride that comes to each of `total` places before it comes to one again."""
    while math.gcd(stride := int(random.integers(1, total + 1)), total) != 1:
        pass
    return stride


def _first_new(sentences: Iterator[SplitPrompt], number: int, seen: set[str]) -> list[SplitPrompt]:
    found: list[SplitPrompt] = []
    while len(found) < number and (sentence := next(sentences, None)) is not None:
        if sentence.text not in seen:
            seen.add(sentence.text)
            found.append(sentence)
    return found


def _none_empty(found: Prompts, what: str) -> Prompts:
    if empty := [name for name, rows in found.items() if not rows]:
        raise ValueError(f"shares.{empty[0]}: nothing is left for it of {what}; give it a larger share, or 0 for none")
    return found
