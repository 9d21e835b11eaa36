"""Captions of mirrored images: left and right change places.

Where a mirror would make a caption false in another way the image is not mirrored: writing, clocks, flags; and a "left"
or "right" that names no side ("the right size", "left alone").
"""

import re

_WORD = re.compile(r"\b(left|right)(most|wards?|-hand|-side|-facing)?\b", re.IGNORECASE)
_BEHIND = re.compile(r"[ -](of|side|half|edge|corner|hand|arm|leg|eye|foot)\b", re.IGNORECASE)  # "left of", "left hand"
_BEFORE = re.compile(r"\b(the|on|to|at|its|facing|looking|turned|top|bottom|upper|lower|far)[ -]$", re.IGNORECASE)
_ENDS = re.compile(r"\s*([.,;:!?)]|$|\b(and|or|in|is|are|with|while)\b)", re.IGNORECASE)
_FIXED = re.compile(
    r"[\"“”]|\b(text|texts|words?|letters?|letter(ing|ed)|numbers?|numerals?|digits?|signs?|logos?|captions?|slogans?"
    r"|reads|reading|says|saying|writes|writing|written|labell?ed|titled?|spell(s|ed|ing)|clocks?|watch(es)?|calendars?"
    r"|clockwise|(counter|anti)-?clockwise|maps?|globes?|flags?|keyboards?|mirror(s|ed)?|(left|right)-handed)\b",
    re.IGNORECASE,
)
_OTHER = {"left": "right", "right": "left"}


def mirrored_caption(caption: str) -> str | None:
    """What is true of an image's mirror image when `caption` is of the image; None where that is not known."""
    if _FIXED.search(caption) or not all(_is_side(caption, found) for found in _WORD.finditer(caption)):
        return None
    return _WORD.sub(lambda found: _cased(found[1]) + (found[2] or ""), caption)


def _is_side(caption: str, found: re.Match[str]) -> bool:
    before, behind = caption[: found.start()], caption[found.end() :]
    if found[2] or _BEHIND.match(behind):
        return True
    return bool(_BEFORE.search(before) and _ENDS.match(behind))


def _cased(word: str) -> str:
    other = _OTHER[word.lower()]
    return other.upper() if word.isupper() else other.capitalize() if word[0].isupper() else other
