"""A judge and pairs of answers: every way to ask it that it has, as rows.

likelihood  log p of each answer after image and question, per token
pmi         the same minus that without the image: what the image adds, so that fluent answers gain nothing
verdict     P("1") against P("2") for the next token of a question that shows both answers, in both orders, averaged
score       P(yes) of each answer by itself; the only way to ask about answers that are images
generated   verdicts in words, at a temperature, in orders that alternate; what four parsers read in each is recorded

The first four read nothing from text and draw nothing at random. A row depends on its judge and its pair alone.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from genloop.data.responses.pair import ResponsePair, ResponsePairs
from genloop.evals.vl_rewardbench.parsers import PARSERS, agrees
from genloop.records import Likelihood, Writing
from genloop.rewards.responses.settings import Reading
from genloop.rewards.responses.wording import SHORT, VERDICTS, Order, question_about

ORDERS: tuple[Order, Order] = ("as given", "swapped")
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Asking:
    """How judges are asked."""

    readings: tuple[Reading, ...]
    trials: int
    writing: Writing
    wording: str
    seed: int


@dataclass(frozen=True, eq=False)
class _Items:
    """Some pairs with their images, in order."""

    numbers: Sequence[int]
    pairs: Sequence[ResponsePair]
    images: Sequence[np.ndarray | None]
    drawn: Sequence[Sequence[np.ndarray]]  # of each pair whose answers are images, both

    @property
    def queries(self) -> list[str]:
        return [pair.query for pair in self.pairs]

    @property
    def responses(self) -> list[tuple[str, str]]:
        return [pair.responses for pair in self.pairs]


def judge_pairs(
    name: str, judge: Any, pairs: ResponsePairs, numbers: Sequence[int], clusters: np.ndarray, asking: Asking
) -> list[Row]:
    """The rows of a judge and the pairs of these numbers; `clusters` (N,) of all pairs."""
    items = _Items(
        numbers, [pairs[n] for n in numbers], [pairs.image(n) for n in numbers], [pairs.drawn(n) for n in numbers]
    )
    rows = [_facts(name, number, pairs[number], int(clusters[number])) for number in numbers]
    for reading, found in _answers(judge, items, asking).items():
        for row, one in zip(rows, found, strict=True):
            row[reading] = one
    return rows


def _facts(name: str, number: int, pair: ResponsePair, cluster: int) -> Row:
    return {
        "judge": name,
        "number": number,
        "id": pair.id,
        "cluster": cluster,
        "group": pair.group,
        "source": pair.source,
        "best": pair.best,
        "num_chars": [len(text) for text in pair.responses],
    }


def _answers(judge: Any, items: _Items, asking: Asking) -> dict[Reading, list[Any]]:
    found: dict[Reading, list[Any]] = {}
    if {"likelihood", "pmi"} & set(asking.readings):
        seen = judge.likelihoods(items.queries, items.responses, items.images)
        if "likelihood" in asking.readings:
            found["likelihood"] = [_scored([one.mean for one in both]) | _tokens(both) for both in seen]
        if "pmi" in asking.readings:
            blind = judge.likelihoods(items.queries, items.responses, [None] * len(items.images))
            found["pmi"] = [
                _scored([one.mean - other.mean for one, other in zip(*both)]) | _tokens(both[1])
                for both in zip(seen, blind)
            ]
    if "verdict" in asking.readings:
        found["verdict"] = _verdicts(judge, items)
    if "score" in asking.readings:
        found["score"] = _scores(judge, items)
    if "generated" in asking.readings:
        found["generated"] = _generated(judge, items, asking)
    return found


def _tokens(both: Sequence[Likelihood]) -> Row:
    return {"log_p": [_finite(one.log_p) for one in both], "num_tokens": [one.num_tokens for one in both]}


def _scored(scores: Sequence[float]) -> Row:
    """Scores of a log scale -> those, and P(the first is better) by Bradley and Terry (1952)."""
    return {"scores": [_finite(score) for score in scores], "p": _sigmoid(scores[0] - scores[1])}


def _verdicts(judge: Any, items: _Items) -> list[Row]:
    """P(answer 1) against P(answer 2) in each order; P(the first is better) is the mean of both orders."""
    in_order = []
    for order in ORDERS:
        asked = [question_about(SHORT, pair.query, pair.responses, order) for pair in items.pairs]
        in_order.append(judge.likelihoods(asked, [VERDICTS] * len(asked), items.images))
    rows = []
    for forth, back in zip(*in_order):
        p_one = [_sigmoid(one.log_p - two.log_p) for one, two in (forth, back)]
        log_p = [[_finite(one.log_p) for one in both] for both in (forth, back)]
        p = None if p_one[0] is None or p_one[1] is None else (p_one[0] + 1 - p_one[1]) / 2
        rows.append({"log_p": log_p, "p_one": p_one, "p": p})
    return rows


def _scores(judge: Any, items: _Items) -> list[Row]:
    """Scores in [0, 1]; P(the first is better) is the odds that it alone is right. None without an image or answer."""
    drawn = [place for place, images in enumerate(items.drawn) if images]
    shown = [place for place, image in enumerate(items.images) if image is not None and place not in drawn]
    given = judge.scores(
        [items.queries[place] for place in shown],
        [items.responses[place] for place in shown],
        [items.images[place] for place in shown],
    )
    given += judge.drawn_scores([items.queries[place] for place in drawn], [items.drawn[place] for place in drawn])
    rows: list[Row] = [{"scores": [None, None], "p": None} for _ in items.pairs]
    for place, (first, second) in zip([*shown, *drawn], given, strict=True):
        if math.isfinite(first) and math.isfinite(second):
            alone, other = first * (1 - second), second * (1 - first)
            p = alone / (alone + other) if alone + other > 0 else 0.5
            rows[place] = {"scores": [first, second], "p": p}
    return rows


def _generated(judge: Any, items: _Items, asking: Asking) -> list[list[Row]]:
    """All trials; the first order alternates from pair to pair, so that odd numbers of trials are balanced too."""
    trials: list[list[Row]] = [[] for _ in items.pairs]
    for trial in range(asking.trials):
        orders = [ORDERS[(number + trial) % 2] for number in items.numbers]
        asked = [
            question_about(asking.wording, pair.query, pair.responses, order)
            for pair, order in zip(items.pairs, orders)
        ]
        seeds = [_seed(asking.seed, number, trial) for number in items.numbers]
        written = judge.write(asked, items.images, seeds, asking.writing)
        for found, pair, order, text in zip(trials, items.pairs, orders, written, strict=True):
            found.append(_trial(pair, order, text))
    return trials


def _trial(pair: ResponsePair, order: Order, text: str | None) -> Row:
    better = 1 + (pair.best if order == "as given" else 1 - pair.best)  # its number, as it was shown
    read = {parser: parse(text or "") for parser, parse in PARSERS.items()}
    told = {parser: agrees(parser, number, better) for parser, number in read.items()}
    return {"order": order, "text": text, "read": read, "agrees": told}


def _seed(seed: int, number: int, trial: int) -> int:
    """The same for every judge, so that judges differ in nothing else."""
    digest = hashlib.blake2b(f"verdict/{seed}/{number}/{trial}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def _finite(x: float) -> float | None:
    """JSON has no NaN."""
    return x if math.isfinite(x) else None


def _sigmoid(x: float) -> float | None:
    if not math.isfinite(x):
        return None
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
