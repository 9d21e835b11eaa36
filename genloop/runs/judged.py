"""Rows of `evaluate_judges`: a judge and a pair of answers, with every way that the judge was asked."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from genloop.ledger import read_rows
from genloop.runs.lineage import job_of
from genloop.runs.rows import Number, RowPart

JUDGES_JOB = "evaluate_judges"
WRITTEN = "generated"  # the reading that is made of trials
STRICT = "strict"  # the parser whose verdicts count where one number is told


class AnswerPreference(RowPart):
    """What a judge prefers, asked in one way: `p` is P(the first is better); None where it gave no number."""

    p: float | None
    scores: tuple[float | None, float | None] | None = None  # of each answer
    log_p: tuple[float | None, float | None] | tuple[tuple[float | None, float | None], ...] | None = None
    num_tokens: tuple[int, int] | None = None
    p_one: tuple[float | None, float | None] | None = None  # P("1") with the answers as given, and swapped


class Trial(RowPart):
    """One written verdict: what each parser read in it, and whether that names the better answer."""

    order: Literal["as given", "swapped"]
    text: str | None
    read: dict[str, int | None]
    agrees: dict[str, bool | None]

    def picked(self, parser: str) -> int | None:
        """The place of the answer that was read, in the order of the pair; None where none was."""
        number = self.read[parser]
        if number not in (1, 2):
            return None
        return number - 1 if self.order == "as given" else 2 - number


class JudgedPair(RowPart):
    """One row."""

    judge: str
    number: Number  # of the pair in its file
    id: str
    cluster: Number
    group: str
    source: str
    best: Literal[0, 1]
    num_chars: tuple[Number, Number]
    likelihood: AnswerPreference | None = None
    pmi: AnswerPreference | None = None
    verdict: AnswerPreference | None = None
    score: AnswerPreference | None = None
    generated: tuple[Trial, ...] | None = None

    @property
    def readings(self) -> list[str]:
        """The ways in which the judge was asked."""
        return [name for name in ("verdict", "likelihood", "pmi", "score", WRITTEN) if getattr(self, name) is not None]

    @property
    def parsers(self) -> list[str]:
        """That read the written verdicts."""
        return list(self.generated[0].read) if self.generated else []

    def preference(self, reading: str) -> float | None:
        """P(the first is better); of written verdicts the share of those that strict reading reads, None for none."""
        if reading != WRITTEN:
            return getattr(self, reading).p
        picked = [place for trial in self.generated or () if (place := trial.picked(STRICT)) is not None]
        return picked.count(0) / len(picked) if picked else None

    def picked(self, reading: str) -> int | None:
        """The place of the preferred answer; None for a tie, and where there is no answer."""
        p = self.preference(reading)
        return None if p is None or p == 0.5 else int(p < 0.5)

    def right(self, reading: str) -> float:
        """1 where the better answer is preferred, 1/2 for a tie, 0 also where there is no answer.

        Written verdicts are right when more than half of all trials say so.
        """
        if reading == WRITTEN:
            return float(self.votes(STRICT)[0] > len(self.generated or ()) / 2)
        picked = self.picked(reading)
        if picked is None:
            return 0.0 if self.preference(reading) is None else 0.5
        return float(picked == self.best)

    def votes(self, parser: str) -> tuple[int, int, int]:
        """Of the trials as a parser reads them: for the better answer, for the other one, not read."""
        said = [trial.agrees[parser] for trial in self.generated or ()]
        return said.count(True), said.count(False), said.count(None)


def is_judging(folder: Path) -> bool:
    """Whether a folder is a run of `evaluate_judges`."""
    return job_of(folder) == JUDGES_JOB


def read_judged(run: Path) -> Iterator[JudgedPair]:
    """The rows of the finished units, in order; ValueError names file, line and key of a damaged one."""
    return read_rows(run, JudgedPair.from_json)


def by_arm(rows: Sequence[JudgedPair]) -> dict[tuple[str, str], list[JudgedPair]]:
    """(judge, reading) -> its rows, in order."""
    found: dict[tuple[str, str], list[JudgedPair]] = {}
    for row in rows:
        for reading in row.readings:
            found.setdefault((row.judge, reading), []).append(row)
    return found
