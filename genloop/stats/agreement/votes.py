"""People's answers about images: GenEval's published annotations, their consensus, or a filled audit sheet -> votes.

The published files ask for counts, colours and the position of the second object; an answer is a yes when it says what
the prompt asks for. With the rule "loose" more objects than asked for are accepted, except for counting prompts; with
"strict" they are not. Rows broken by a line break in a free-text answer are skipped and counted.
"""

import csv
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Rule = Literal["loose", "strict"]
PUBLISHED, CONSENSUS, SHEET = "Input.prompt_id", "n_loose", "answer"  # a column that tells the format
SHEET_COLUMNS = ("image", "prompt_index", "sample", "tag", "prompt", "question", SHEET)
YES, NO, UNSURE = frozenset({"yes", "y", "1", "true"}), frozenset({"no", "n", "0", "false"}), frozenset({"", "unsure"})
_COLUMNS = {  # {the one that tells the format: the others that are needed}
    PUBLISHED: ("Input.image_id", "Answer.task-count-0", "Answer.task-color-0", "Answer.task-position-x"),
    CONSENSUS: ("prompt_id", "image_id", "n_strict", "n_annotators"),
    SHEET: ("prompt_index", "sample"),
}
_SIDES = {"left of": "left", "right of": "right", "above": "above", "below": "below"}
_NUMBERS = re.compile(r"[0-9]{1,9} [0-9]{1,9}")
Place = tuple[int, int]  # prompt_index, sample
Prompts = Mapping[int, tuple[str, Mapping[str, Any]]]  # prompt_index -> text, GenEval metadata


@dataclass(frozen=True, slots=True)
class Votes:
    """How many of those who answered said yes to an image."""

    yes: int
    total: int

    @property
    def label(self) -> bool | None:
        """What the majority said; None for a tie."""
        return None if 2 * self.yes == self.total else 2 * self.yes > self.total

    @property
    def margin(self) -> tuple[int, int]:
        """(5, 0), (4, 1), (3, 2): the majority and the rest."""
        return max(self.yes, self.total - self.yes), min(self.yes, self.total - self.yes)


@dataclass(frozen=True, slots=True)
class Annotations:
    """The votes of one set of images, by place, and what could not be used."""

    votes: Mapping[Place, Votes]
    malformed: int = 0  # rows broken by a line break
    unanswered: int = 0  # rows without a yes or no
    elsewhere: int = 0  # images of prompts that were not evaluated


def read_votes(paths: Sequence[Path], prompts: Prompts, rule: Rule) -> Annotations:
    """The votes in CSV files about the same images; several people's files add up. ValueError names file and line."""
    yes: Counter[Place] = Counter()
    total: Counter[Place] = Counter()
    lost: Counter[str] = Counter()
    models: dict[str, str] = {}
    for path in paths:
        for line, row in _rows(path):
            place = _place(row)
            if place is None:
                lost["malformed"] += 1
            elif place[0] not in prompts:
                lost["elsewhere"] += 1
            else:
                _check_prompt(row, prompts[place[0]][0], f"{path}:{line}")
                _check_model(row, models, f"{path}:{line}")
                found = _counted(row, prompts[place[0]][1], rule, f"{path}:{line}")
                lost["unanswered"] += found.total == 0
                yes[place] += found.yes
                total[place] += found.total
    votes = {place: Votes(yes[place], count) for place, count in total.items() if count}
    return Annotations(votes, lost["malformed"], lost["unanswered"], lost["elsewhere"])


def check_votes(path: Path) -> str:
    """The format of a file by its header: the column that tells it; ValueError or FileNotFoundError otherwise."""
    if not path.is_file():
        raise FileNotFoundError(f"annotations: no such file: {path}")
    with open(path, newline="", encoding="utf-8-sig", errors="replace") as file, _readable(path):
        header = next(csv.reader(file), [])
    for column, others in _COLUMNS.items():
        if column in header:
            if missing := [name for name in others if name not in header]:
                raise ValueError(f"annotations: {path} has the column {column} but not {missing[0]}; download it again")
            return column
    raise ValueError(
        f"annotations: {path} has none of the columns {PUBLISHED} (GenEval's annotations), {CONSENSUS} (their "
        f"consensus), {SHEET} (an audit sheet)"
    )


def sheet_cell(text: str) -> str:
    """A text as a cell of a sheet: behind an apostrophe where a spreadsheet would take it for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def says_yes(row: Mapping[str, str | None], metadata: Mapping[str, Any], rule: Rule) -> bool:
    """Whether one person's published answer says that the image shows its prompt."""
    exact = rule == "strict" or metadata["tag"] == "counting"
    for number, clause in enumerate(metadata["include"]):
        count = _number(row.get(f"Answer.task-count-{number}"))
        if count != clause["count"] if exact else count < clause["count"]:
            return False
        colors = (row.get(f"Answer.task-color-{number}") or "").split("|")
        if clause.get("color") is not None and clause["color"] not in colors:
            return False
        if clause.get("position") is not None and not _stands(row, clause["position"][0]):
            return False
    return True


def _stands(row: Mapping[str, str | None], relation: str) -> bool:
    """People were asked where the second object is, seen from the first."""
    return _SIDES[relation] in (row.get("Answer.task-position-x"), row.get("Answer.task-position-y"))


def _rows(path: Path) -> Iterable[tuple[int, Mapping[str, str | None]]]:
    check_votes(path)
    with open(path, newline="", encoding="utf-8-sig", errors="replace") as file, _readable(path):
        reader = csv.DictReader(file)
        yield from ((reader.line_num, row) for row in reader)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except csv.Error as error:
        raise ValueError(f"annotations: {path} is no CSV file: {error}") from None


def _place(row: Mapping[str, str | None]) -> Place | None:
    """Which image a row is about; None for a torn row."""
    names = ("Input.prompt_id", "Input.image_id"), ("prompt_id", "image_id"), ("prompt_index", "sample")
    for first, second in names:
        if first in row:
            prompt, sample = row[first] or "", row[second] or ""
            return (int(prompt), int(sample)) if _NUMBERS.fullmatch(f"{prompt} {sample}") else None
    return None


def _check_prompt(row: Mapping[str, str | None], text: str, where: str) -> None:
    said = row.get("Input.caption") or row.get("prompt")
    if said is not None and said.split() not in (text.split(), sheet_cell(text).split()):
        raise ValueError(f"{where}: annotated is {said!r}, evaluated was {text!r}; the files are of other prompts")


def _check_model(row: Mapping[str, str | None], known: dict[str, str], where: str) -> None:
    """Prompts and samples have the same numbers in every model's images."""
    model = row.get("model") or (row.get("Input.image_url") or "").rsplit("/", 3)[0]
    known.setdefault(model, where)
    if len(known) > 1:
        (first, place), (second, _) = list(known.items())[:2]
        raise ValueError(
            f"{where}: about images of {second}, but {place} of {first}; give each model's in its own file"
        )


def _counted(row: Mapping[str, str | None], metadata: Mapping[str, Any], rule: Rule, where: str) -> Votes:
    """The votes of one row: of one person, or of all in a consensus."""
    if PUBLISHED in row:
        try:
            return Votes(int(says_yes(row, metadata, rule)), 1)
        except (KeyError, TypeError, AttributeError, IndexError):
            raise ValueError(f"{where}: evaluated without GenEval's metadata, by which answers are read") from None
    if CONSENSUS in row:
        yes, total = (_whole(row, key, where) for key in (f"n_{rule}", "n_annotators"))
        if yes > total:
            raise ValueError(f"{where}: n_{rule} is {yes}, more than the {total} of n_annotators")
        return Votes(yes, total)
    answer = (row[SHEET] or "").strip().lower()
    if answer not in YES | NO | UNSURE:
        raise ValueError(f"{where}: answer must be yes, no or empty, found {row[SHEET]!r}")
    return Votes(int(answer in YES), int(answer not in UNSURE))


def _whole(row: Mapping[str, str | None], key: str, where: str) -> int:
    text = row[key] or "0"
    if not (text.isascii() and text.isdecimal()):
        raise ValueError(f"{where}: {key} must be a whole number, found {text[:40]!r}")
    return int(text)


def _number(text: str | None) -> int:
    """ "2" and "2.0" -> 2; what is no number was not seen."""
    try:
        return int(float(text or 0))
    except (ValueError, OverflowError):  # inf
        return 0
