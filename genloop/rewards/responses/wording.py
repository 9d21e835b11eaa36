"""What a judge of two answers is asked, word for word; the answers stand in either order."""

import re
from pathlib import Path
from typing import Literal

from genloop.reading import read_utf8

Order = Literal["as given", "swapped"]
_PLACE = re.compile(r"\{(query|first|second)\}")
VERDICTS = ("1", "2")  # what SHORT is answered with

_GENERATED = """You judge answers to questions about images. Look at the image, read the question, and decide which of \
two answers is better.

Question: {query}

Answer 1: {first}

Answer 2: {second}

Judge both answers by these criteria:
1. Accuracy: does the answer agree with what the image shows?
2. Completeness: does it deal with every part of the question?
3. Clarity: is it easy to understand?
4. Relevance: is it about the question and the image?

Give your reasons for each criterion. End with one line of your overall judgment, in this form: \
Overall Judgment: Answer X is better."""
SHORT = """Question: {query}

Answer 1: {first}

Answer 2: {second}

Which answer is better, going by the image? Reply with 1 or 2 only."""


def read_wording(path: Path | None) -> str:
    """A file's text with {query}, {first} and {second} in it, or the text of this module; ValueError names the file."""
    text = _GENERATED if path is None else read_utf8(path).strip()
    if missing := [f"{{{name}}}" for name in ("query", "first", "second") if f"{{{name}}}" not in text]:
        raise ValueError(f"{path}: has no {', '.join(missing)}; say where question and answers go")
    return text


def question_about(wording: str, query: str, responses: tuple[str, str], order: Order) -> str:
    """A wording with question and answers: of `read_wording`, or SHORT."""
    first, second = responses if order == "as given" else responses[::-1]
    values = {"query": query, "first": first, "second": second}
    return _PLACE.sub(lambda found: values[found[1]], wording)  # in one pass: answers may hold braces
