"""Which numbers a text quotes about which features, in sentences of this suite and in any others.

A sentence that one of the templates made is read by it. Of others, a number belongs to the feature that is named last
before it; a second number behind it is a threshold. Numbers that follow no feature are left unread.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

from genloop.data.irg.phrases import FEATURES, NUMBER, Parsed, parse, sentences
from genloop.data.irg.record import Features

_OTHER_NAMES = {  # of features, in texts of others
    "mean brightness": "brightness",
    "luma": "brightness",
    "rms contrast": "contrast",
    "clipped highlights": "clip_hi",
    "clip_hi": "clip_hi",
    "clipped shadows": "clip_lo",
    "clip_lo": "clip_lo",
    "color cast": "cast",
    "laplacian variance": "sharpness",
    "noise sigma": "noise",
    "noise": "noise",
    "clip similarity": "clip_similarity",
}
_BY_NAME = {name.lower(): feature for feature, name in FEATURES.items()} | _OTHER_NAMES
_NAME = re.compile(r"\b(" + "|".join(sorted(map(re.escape, _BY_NAME), key=len, reverse=True)) + r")\b", re.I)
_REACH = 60  # characters from a feature's name to its number


class Quote(NamedTuple):
    """A number that a text gives as the value (or threshold, or another role) of a feature."""

    feature: str
    text: str
    role: str = "value"  # value, threshold, before, after

    def equals(self, number: float) -> bool:
        """Whether this is the number at the precision that is printed."""
        return same_at_precision(self.text, number)


def same_at_precision(text: str, number: float) -> bool:
    """Whether a number, rounded to as many decimals as the text has, reads as the text does (-0.0 as 0.0)."""
    decimals = len(text.partition(".")[2])
    shown = f"{number:z.{decimals}f}"
    return shown == text or shown == f"{float(text):z.{decimals}f}"


def quotes(text: str) -> list[Quote]:
    """Every quote of a paragraph, in order."""
    return [quote for sentence in sentences(text) for quote in quotes_of_sentence(sentence, parse(sentence))[0]]


def faithful(text: str, features: Features) -> tuple[int, int]:
    """Of the values that a text quotes: how many are those of the features, and how many there are."""
    values = [quote for quote in quotes(text) if quote.role == "value"]
    known: Mapping[str, float | None] = features.model_dump()
    right = [quote for quote in values if (number := known[quote.feature]) is not None and quote.equals(number)]
    return len(right), len(values)


def quotes_of_sentence(sentence: str, parsed: Parsed | None) -> tuple[list[Quote], list[str]]:
    """The quotes of one sentence, and the numbers in it that stand for nothing that is known."""
    if parsed is None:
        return _loose(sentence)
    fields = parsed.fields
    if "quotes" in fields:
        return _loose(fields["quotes"])
    if "feature" not in fields:
        return [], []
    feature = _BY_NAME[fields["feature"]]
    roles = (role for role in ("value", "threshold", "before", "after") if role in fields)
    return [Quote(feature, fields[role], role) for role in roles], []


def _loose(text: str) -> tuple[list[Quote], list[str]]:
    names = [(match.start(), match.end(), _BY_NAME[match[1].lower()]) for match in _NAME.finditer(text)]
    found: list[Quote] = []
    unread: list[str] = []
    taken: dict[int, int] = {}  # numbers that each name has so far
    for number in NUMBER.finditer(text):
        before = [place for place, (_, end, _) in enumerate(names) if end <= number.start()]
        if not before or number.start() - names[before[-1]][1] > _REACH:
            unread.append(number[0])
            continue
        count = taken.get(before[-1], 0)
        taken[before[-1]] = count + 1
        if count > 1:
            unread.append(number[0])
        else:
            found.append(Quote(names[before[-1]][2], number[0], ("value", "threshold")[count]))
    return found, unread
