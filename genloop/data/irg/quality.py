"""How good an image is by its measured features alone, in [0, 1]: 1 within all limits of its instruction."""

import math
import re

from genloop.data.irg.diagnose import diagnose
from genloop.data.irg.record import Features, Intent

_WANTED: tuple[tuple[Intent, re.Pattern[str]], ...] = (
    ("dark", re.compile(r"\b(dark|night|midnight|moonlit|low[- ]key|dim|dusk|candlelight)\b", re.I)),
    ("bright", re.compile(r"\b(bright|high[- ]key|sunlit|airy|snow|noon)\b", re.I)),
)


def quality(features: Features, intent: Intent = "neutral") -> float:
    """The product of 1 - severity over what the rule oracle finds."""
    return math.prod(1 - diagnosis.severity for diagnosis in diagnose(features, intent))


def intent_of(instruction: str) -> Intent:
    """The exposure that an instruction asks for, by its words; neutral where it names none, or both."""
    found = [intent for intent, words in _WANTED if words.search(instruction)]
    return found[0] if len(found) == 1 else "neutral"
