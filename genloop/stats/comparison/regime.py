"""Conditions of two evaluations, and whether their numbers are comparable.

A run's card says how its images were made (`images`) and how they were judged (`detector`, `colors`, `options`).
Models and strategies are the subject of a comparison and may differ. Other conditions of generation (guidance, steps,
size, seed, rewritten prompts) and of judging must be equal, or be allowed by name. "all" allows every condition of
generation; one of judging has to be named, and so has a card that is missing or incomplete ("card").
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from genloop.registry import did_you_mean

ALL = "all"
NO_CARD = "card"  # the condition of a missing or incomplete card
COVERAGE = "coverage"  # the condition of different sets of images
EVALUATOR = ("detector", "colors", "options")
MAKING = "images"
COMPARED = ("search", "judge", "weights")  # groups of the making that comparisons are about, whatever is in them
REGIME = frozenset({"guidance", "step", "steps", "size", "resolution", "height", "width"}) | frozenset(
    {"seed", "seeds", "sample", "samples", "prompt", "prompts", "rewritten"}
)  # a word of a condition's name that makes it one of the regime
_PLACES = ("sha256", "source", "by", "num_images")  # of the images: which they are, not how they were made
Kind = Literal["subject", "making", "judging"]
_UNKNOWN = object()


class Differing(NamedTuple):
    """One condition that differs. A `subject` is always allowed; `judging` has to be allowed by name."""

    name: str
    a: str
    b: str
    kind: Kind

    def __str__(self) -> str:
        return f"{self.name} ({self.a} / {self.b})" if self.a or self.b else self.name


def differing(a: Mapping[str, Any] | None, b: Mapping[str, Any] | None) -> list[Differing]:
    """What differs between two cards, in the order of the first.

    A missing card, or one without a known source of its images, counts as one difference, which replaces those in
    conditions of generation that only the other card holds.
    """
    unknown = [Differing(NO_CARD, _there(a), _there(b), "judging")] if not (_is_known(a) and _is_known(b)) else []
    if a is None or b is None:
        return unknown
    ours, theirs = conditions(a), conditions(b)
    names = [name for name in dict.fromkeys([*ours, *theirs]) if ours.get(name, _UNKNOWN) != theirs.get(name, _UNKNOWN)]
    if unknown:
        names = [name for name in names if _kind(name) == "judging" or (name in ours and name in theirs)]
    return unknown + [Differing(name, _shown(ours, name), _shown(theirs, name), _kind(name)) for name in names]


def conditions(card: Mapping[str, Any]) -> dict[str, Any]:
    """{name: value}: those of the judging by their dotted keys, those of the making without "images."."""
    found: dict[str, Any] = {}
    for group in EVALUATOR:
        _flatten(card.get(group), group, found)
    making = card.get(MAKING)
    for key, value in making.items() if isinstance(making, Mapping) else ():
        if key not in _PLACES:
            _flatten(value, f"{MAKING}.{key}" if key in EVALUATOR else key, found)
    return found


def refuse(found: Sequence[Differing], allow: Sequence[str], names: tuple[str, str], known: Sequence[str]) -> None:
    """ValueError of one line unless everything that differs is allowed; `known` are the names that `allow` may hold."""
    for word in allow:
        if not any(_covers(word, name) for name in known):
            raise ValueError(f"allow: unknown condition {word!r}{did_you_mean(word, known)} ({', '.join(known)})")
    if refused := [one for one in found if not is_allowed(one, allow)]:
        words = ",".join([*allow, *(one.name for one in refused)])
        hint = "; " + ALL + " does not cover how images were judged" if ALL in allow else ""
        raise ValueError(f"{names[0]} and {names[1]} {in_words(refused)}; to compare anyway: allow=[{words}]{hint}")


def in_words(found: Sequence[Differing]) -> str:
    """The differing conditions as the predicate of a sentence about two runs."""
    differ = [str(one) for one in found if one.name != NO_CARD]
    said = [f"differ in {', '.join(differ)}"] if differ else []
    said += [f"do not both tell how their images were made ({one.a} / {one.b})" for one in found if one.name == NO_CARD]
    return " and ".join(said)


def is_allowed(one: Differing, allow: Sequence[str]) -> bool:
    """Whether a difference is a subject, or allowed by name, by its group ("options"), or by "all"."""
    return (
        one.kind == "subject"
        or any(_covers(word, one.name) for word in allow if word != ALL)
        or (ALL in allow and one.kind == "making")
    )


def names_of(*cards: Mapping[str, Any] | None) -> list[str]:
    """Every name that `allow` may hold for these cards."""
    own = dict.fromkeys(name for card in cards for name in conditions(card or {}))
    return [ALL, NO_CARD, COVERAGE, MAKING, *own]


def _is_known(card: Mapping[str, Any] | None) -> bool:
    """Whether a card records how its images were generated."""
    making = (card or {}).get(MAKING) or {}
    return bool(making) and making.get("source") != "unknown"


def _there(card: Mapping[str, Any] | None) -> str:
    if card is None:
        return "no card"
    return "told" if _is_known(card) else "not known"


def _covers(word: str, name: str) -> bool:
    return name == word or name.startswith(f"{word}.")


def _kind(name: str) -> Kind:
    group = name.partition(".")[0]
    if group in EVALUATOR:
        return "judging"
    if group in COMPARED:
        return "subject"
    return "making" if REGIME.intersection(re.split(r"[._]", name)) else "subject"


def _flatten(value: Any, name: str, found: dict[str, Any]) -> None:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            _flatten(inner, f"{name}.{key}", found)
    elif value is not None and value != {}:
        found[name] = value


def _shown(values: Mapping[str, Any], name: str) -> str:
    """A value in at most 40 characters, hashes in 8; "none" for an option that a strategy does not have."""
    text = str(values.get(name, "none" if name.partition(".")[0] in COMPARED else "unknown"))
    if re.fullmatch(r"[0-9a-f]{40,}", text):
        return text[:8]
    return text if len(text) <= 40 else text[:37] + "..."
