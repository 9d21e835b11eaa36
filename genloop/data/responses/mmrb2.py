"""Multimodal RewardBench 2 (Hu et al. 2025), one file a task: {"pairs": [{"prompt_content", "response_a", ...}]}.

Contents are lists of ["text", TEXT] and ["image", PATH]. Two kinds of pairs are judged here: answers that are texts, to
a prompt with one image at most; and answers that are one image each, to a prompt without any. The others, edited and
interleaved images, are left out.
"""

from collections.abc import Sequence
from typing import Any

from genloop.data.responses.layout import Row, text_of
from genloop.data.responses.pair import ResponsePair

_ANSWERS = ("response_a", "response_b")


def read_row(row: Row, where: str, task: str) -> tuple[Any, ...] | None:
    """-> a pair, the file of its image, and those of answers that are images; None when it cannot be judged.

    ValueError names `where` and the key.
    """
    if row.get("chosen") not in ("A", "B"):
        raise ValueError(f"{where}: chosen: needs A or B, found {row.get('chosen')!r}")
    asked = _content(row, "prompt_content", where)
    answers = [_answer(row, key, where) for key in _ANSWERS]
    kinds = [[kind for kind, _ in content] for content in (asked, *answers)]
    is_drawn = "image" not in kinds[0] and kinds[1:] == [["image"], ["image"]]
    if not is_drawn and (kinds[0].count("image") > 1 or any("image" in answer for answer in kinds[1:])):
        return None
    first, second = ("" if is_drawn else _words(one, f"{where}: {key}") for key, one in zip(_ANSWERS, answers))
    query, source = _words(asked, f"{where}: prompt_content"), str(row.get("prompt_source") or task)
    name = text_of(row, "pair_id" if "pair_id" in row else "id", where)
    pair = ResponsePair(name, query, (first, second), "AB".index(row["chosen"]), task, source, is_drawn)
    drawn = [answer[0][1] for answer in answers] if is_drawn else []
    return pair, next((value for kind, value in asked if kind == "image"), None), *drawn


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
