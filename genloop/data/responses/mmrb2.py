"""Multimodal RewardBench 2 (Hu et al. 2025), one file a task: {"pairs": [{"prompt_content", "response_a", ...}]}.

Contents are lists of ["text", TEXT] and ["image", PATH]. A pair is judged here when its prompt has one image at most
and both answers are texts; answers that are images are for judges of images.
"""

from collections.abc import Sequence

from genloop.data.responses.layout import Row, text_of
from genloop.data.responses.pair import ResponsePair

_ANSWERS = ("response_a", "response_b")


def read_row(row: Row, where: str, task: str) -> tuple[ResponsePair, str | None] | None:
    """-> a pair, and the file of its image; None when it cannot be judged. ValueError names `where` and the key."""
    if row.get("chosen") not in ("A", "B"):
        raise ValueError(f"{where}: chosen: needs A or B, found {row.get('chosen')!r}")
    asked = _content(row, "prompt_content", where)
    answers = [_answer(row, key, where) for key in _ANSWERS]
    shown = [value for kind, value in asked if kind == "image"]
    if len(shown) > 1 or any(kind != "text" for answer in answers for kind, _ in answer):
        return None
    first, second = (_words(answer, f"{where}: {key}") for key, answer in zip(_ANSWERS, answers))
    query, source = _words(asked, f"{where}: prompt_content"), str(row.get("prompt_source") or task)
    best = "AB".index(row["chosen"])
    pair = ResponsePair(text_of(row, "pair_id", where), query, (first, second), best, task, source)
    return pair, next(iter(shown), None)


def _answer(row: Row, key: str, where: str) -> Sequence[tuple[str, str]]:
    found = row.get(key)
    return _content(found if isinstance(found, dict) else {}, "response_content", f"{where}: {key}")


def _content(row: Row, key: str, where: str) -> list[tuple[str, str]]:
    value = row.get(key)
    if not isinstance(value, list) or not all(isinstance(part, list) and len(part) == 2 for part in value):
        raise ValueError(f"{where}: {key}: needs a list of [kind, value], found {str(value)[:80]!r}")
    return [(str(kind), str(part)) for kind, part in value]


def _words(content: Sequence[tuple[str, str]], where: str) -> str:
    return text_of({"text": "\n".join(value for kind, value in content if kind == "text")}, "text", where)
