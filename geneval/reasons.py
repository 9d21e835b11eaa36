"""Why an image is wrong, in a few plain words: "no red circle", "three stars not two", "circle not left of star".

Derived from a verdict's reasons, whose wording is fixed. The words are those of prompts, and "no", "not", "many".
"""

import re

from genloop.data.prompts import NUMBERS, plural
from genloop.records import Clause, Prompt, Verdict

# Names and counts are bounded, so that a line of any length is read in linear time.
_MISSING = re.compile(
    r"expected (?P<name>.{1,99})>=(?P<count>\d{1,9}), found (?P<found>\d{1,9})(?P<colors> .+; and .*)?"
)
_TOO_MANY = re.compile(r"expected (?P<name>.{1,99})<(?P<count>\d{1,9}), found (?P<found>\d{1,9})")


def in_words(prompt: Prompt, verdict: Verdict) -> str:
    """ "" for a correct image, else one phrase a failed clause, joined by "and"."""
    phrases = [_phrase(prompt, line) for line in verdict.reason.split("\n") if line]
    return " and ".join(dict.fromkeys(phrase for phrase in phrases if phrase))


def _phrase(prompt: Prompt, line: str) -> str:
    """The phrase for one line of a verdict; "" when another line already says it (a relation without its target)."""
    if match := _MISSING.fullmatch(line):
        count, found = int(match["count"]), int(match["found"])
        return f"no {_named(match['name'], count)}" if found == 0 else _counted(match["name"], found, count)
    if match := _TOO_MANY.fullmatch(line):
        return _counted(match["name"], int(match["found"]), int(match["count"]) - 1)
    related = next((clause for clause in prompt.include if _is_about(clause, line)), None)
    if related is None or related.position is None:
        return ""
    relation, target = related.position
    return f"{related.class_name} not {relation} {prompt.include[target].class_name}"


def _is_about(clause: Clause, line: str) -> bool:
    return clause.position is not None and line.startswith(f"expected {clause.class_name} {clause.position[0]} target")


def _counted(name: str, found: int, wanted: int) -> str:
    there, asked = (NUMBERS[count] if count < len(NUMBERS) else "many" for count in (found, wanted))
    return f"{there} {_named(name, found)} not {asked}"


def _named(name: str, count: int) -> str:
    return name if count == 1 else plural(name)
