"""What written verdicts say, read by the rules of four programs: text -> the number of the better answer, or None.

The published programs read the same text differently, so accuracies that are told apart by less than their differences
in reading mean nothing. Two of them ask another language model about texts that they cannot read, and lmms-eval throws
a coin after that; here such texts stay unread, since no result may depend on another model or on chance.
"""

import re
from collections.abc import Callable

Parser = Callable[[str], int | None]

_SENTENCE = re.compile(  # published with \s*.*\s*-*\s* for .*, which finds the same and takes hours for many blanks
    r"(?:overall judgment|therefore).*answer\s*(?P<number>\d+)\s*is\s*(?:the\s*)?(?:slightly\s*)?better",
    re.IGNORECASE,
)
_LAST_LINE = re.compile(
    r"(?:(?:overall judgment|therefore)[:,]?\s+)?answer ([12]) is (?:the )?(?:slightly )?better(?: answer)?\.?",
    re.IGNORECASE,
)
_CLAIM = re.compile(r"answer ([12]) is (?:the )?(?:slightly )?better", re.IGNORECASE)
_MARKUP = str.maketrans("", "", "*_#`>")


def official(text: str) -> int | None:
    """VL-RewardBench's: the last "Answer N is better" behind "Overall Judgment" or "Therefore", lines joined.

    N may be any number, and what stands in front of it is not read: "Therefore I cannot say that Answer 1 is better"
    is 1.
    """
    found = _SENTENCE.search(text.replace("\n", "").replace("*", ""))
    return None if found is None else int(found["number"].lstrip("0")[:9] or 0)  # rows hold no number of any length


def vlmevalkit(text: str) -> int | None:
    """VLMEvalKit's: 1 where "answer 1" occurs anywhere, else 2 where "answer 2" does.

    The program looks at another model's summary of the text; "Answer 2 is better than Answer 1" is 1 either way.
    """
    lower = text.lower()
    return next((number for number in (1, 2) if f"answer {number}" in lower), None)


def lmms_eval(text: str) -> int | None:
    """lmms-eval's: as the official one on the stripped text; other numbers than 1 and 2 are never right there."""
    return official(text.strip())


def strict(text: str) -> int | None:
    """Ours: the last line says so and nothing else, and no other sentence of the text says the opposite."""
    lines = [line.translate(_MARKUP).strip() for line in text.splitlines()]
    last = next((line for line in reversed(lines) if line), "")
    found = _LAST_LINE.fullmatch(last)
    if found is None:
        return None
    judged = [line for line in lines[:-1] if line.lower().startswith(("overall judgment", "therefore"))]
    claims = {claim[1] for line in judged for claim in _CLAIM.finditer(line)}
    return int(found[1]) if claims <= {found[1]} else None


PARSERS: dict[str, Parser] = {
    "official": official,
    "vlmevalkit": vlmevalkit,
    "lmms_eval": lmms_eval,
    "strict": strict,
}


def agrees(parser: str, number: int | None, better: int) -> bool | None:
    """Whether what was read names the better answer (1 or 2); None where nothing was read.

    The official program calls every number but that of the worse answer agreement.
    """
    if number is None:
        return None
    return number != 3 - better if parser == "official" else number == better
