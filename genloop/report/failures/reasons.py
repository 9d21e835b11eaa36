"""Why images are wrong: the reasons of verdicts, whose wording is fixed, as kinds of failure that can be counted."""

import re
from dataclasses import dataclass

from genloop.records import COLORS, RELATIONS

MISSING, TOO_FEW, TOO_MANY = "missing", "too few", "too many"
COLOR, RELATION, NO_TARGET = "colour", "relation", "no target"
UNREADABLE, OTHER = "unreadable", "other"
KINDS = (MISSING, TOO_FEW, TOO_MANY, COLOR, RELATION, NO_TARGET, UNREADABLE, OTHER)
ABOUT = {
    MISSING: "no object of the class",
    TOO_FEW: "some, but not as many as asked for",
    TOO_MANY: "more than a counting prompt asks for",
    COLOR: "the object is there in another colour",
    RELATION: "both objects are there, elsewhere",
    NO_TARGET: "nothing to stand in relation to, because another clause failed",
    UNREADABLE: "the file does not decode",
    OTHER: "anything else",
}
# Names are bounded, so that a line of any length is read in linear time.
_NAME, _FOUND = r"(?P<name>.{1,99})", r"found (?P<found>\d{1,9})"
_RELATION = rf"(?P<relation>{'|'.join(RELATIONS)})"
_COLOR = re.compile(rf"expected ({'|'.join(COLORS)}) {_NAME}>=\d{{1,9}}, {_FOUND} \1; and .*")
_FEW = re.compile(rf"expected {_NAME}>=\d{{1,9}}, {_FOUND}")
_MANY = re.compile(rf"expected {_NAME}<\d{{1,9}}, {_FOUND}")
_PLACE = re.compile(rf"expected {_NAME} {_RELATION} target, found (?P<found>.{{0,99}}) target")
_LOST = re.compile(rf"no target for {_NAME} to be {_RELATION}")


@dataclass(frozen=True, slots=True)
class FailedClause:
    """One failed clause: its kind, the class that it is about; of a relation which was wanted, which were found."""

    kind: str
    class_name: str = ""
    relation: str = ""
    found: tuple[str, ...] = ()


def failures(reason: str) -> list[FailedClause]:
    """The failed clauses of a verdict, in order; none for a correct image."""
    return [_failure(line) for line in reason.split("\n") if line]


def _failure(line: str) -> FailedClause:
    if line.startswith("unreadable: "):
        return FailedClause(UNREADABLE)
    if match := _COLOR.fullmatch(line):
        return FailedClause(COLOR, match["name"])
    if match := _FEW.fullmatch(line):
        return FailedClause(MISSING if match["found"] == "0" else TOO_FEW, match["name"])
    if match := _MANY.fullmatch(line):
        return FailedClause(TOO_MANY, match["name"])
    if match := _PLACE.fullmatch(line):
        found = tuple(match["found"].split(" and ")) if match["found"] else ()
        return FailedClause(RELATION, match["name"], match["relation"], found)
    if match := _LOST.fullmatch(line):
        return FailedClause(NO_TARGET, match["name"], match["relation"])
    return FailedClause(OTHER)
