"""How the requests of many images are served together: previews decoded once, one call of the judge for a question.

Every row is charged to the image that asked. B = rows, n = image tokens, H, W = pixels.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from genloop.protocols import Judge, Sampler
from genloop.records import Judgement
from genloop.search.image import Ask, Compare, Doubt, Explain, ImageSearch, Look, Moment

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
Requests = Sequence[tuple[ImageSearch, Any]]  # of one kind; an Ask of one question


def gather(sampler: Sampler[Any], moments: Sequence[Moment]) -> Any:
    """The rows of moments as one state of the sampler."""
    runs: list[tuple[Any, list[int]]] = []
    for moment in moments:
        if not runs or runs[-1][0] is not moment.state:
            runs.append((moment.state, []))
        runs[-1][1].append(moment.row)
    parts = [state if rows == list(range(len(state))) else state.select(rows) for state, rows in runs]
    return parts[0] if len(parts) == 1 else sampler.join(parts)


def _ask(sampler: Sampler[Any], judge: Judge | None, asked: Requests) -> list[list[float]]:
    """P(yes) of every row of every Ask; recorded in the trace of its path unless it is about other pixels."""
    assert judge is not None
    question = asked[0][1].question
    rows = [(image, moment, i, request) for image, request in asked for i, moment in enumerate(request.moments)]
    answers: list[float] = []
    for part in _parts(rows, sampler.slots):
        _decode(sampler, [(image, moment) for image, moment, _, request in part if request.images is None])
        pixels = [moment.pixels if request.images is None else request.images[i] for _, moment, i, request in part]
        answers += judge.p_yes(question, [image.prompt for image, *_ in part], _stack(pixels)).tolist()
    for (image, moment, _, request), p_yes in zip(rows, answers, strict=True):
        before = moment.asked if request.images is None else ()
        image.charge((*before, question), before)
        if request.images is None:
            moment.asked = (*before, question)
            _record(moment, question, p_yes)
    return _split(answers, [len(request.moments) for _, request in asked])


def _look(sampler: Sampler[Any], judge: Judge | None, asked: Requests) -> "list[Tensor]":
    """The pixels of every Look."""
    for part in _parts([(image, moment) for image, look in asked for moment in look.moments], sampler.slots):
        _decode(sampler, part)
    return [_stack([moment.pixels for moment in look.moments]) for _, look in asked]


def _compare(sampler: Sampler[Any], judge: Any, asked: Requests) -> list[list[float]]:
    """P(the first is better) of every pair of every Compare; in the traces: P(better than the other)."""
    pairs = [(image, pair) for image, request in asked for pair in zip(request.first, request.second, strict=True)]
    answers: list[float] = []
    for part in _parts(pairs, sampler.slots):
        _decode(sampler, [(image, moment) for image, pair in part for moment in pair])
        first, second = (_stack([pair[side].pixels for _, pair in part]) for side in (0, 1))
        answers += judge.p_first([image.prompt for image, _ in part], first, second).tolist()
    for (image, pair), p_first in zip(pairs, answers, strict=True):
        for moment, p_yes in zip(pair, (p_first, 1 - p_first)):
            image.charge(("outcome",))
            _record(moment, "compare", p_yes)
    return _split(answers, [len(request.first) for _, request in asked])


def _explain(sampler: Sampler[Any], judge: Any, asked: Requests) -> list[list[str]]:
    """The reasons of every row of every Explain, which their paths keep."""
    rows = [(image, moment) for image, request in asked for moment in request.moments]
    answers: list[str] = []
    for part in _parts(rows, sampler.slots):
        _decode(sampler, part)
        said = judge.reasons([image.prompt for image, _ in part], _stack([moment.pixels for _, moment in part]))
        answers += [reason or "" for reason in said]
    for (image, moment), reason in zip(rows, answers, strict=True):
        image.charge(("outcome",))
        moment.path.reason = reason
    return _split(answers, [len(request.moments) for _, request in asked])


def _doubt(sampler: Sampler[Any], judge: Judge | None, asked: Requests) -> "list[Tensor]":
    """The confidence (B, n) of the paths of every Doubt."""
    import torch

    moments = [path.now for _, request in asked for path in request.paths]
    found = torch.cat([sampler.confidence(gather(sampler, part)) for part in _parts(moments, sampler.slots)])
    for image, request in asked:
        image.generator_steps += 1.5 * len(request.paths)
    return list(found.split([len(request.paths) for _, request in asked]))


SERVE: dict[type, Callable[[Sampler[Any], Any, Requests], list[Any]]] = {
    Ask: _ask,
    Look: _look,
    Compare: _compare,
    Explain: _explain,
    Doubt: _doubt,
}


def _decode(sampler: Sampler[Any], rows: Sequence[tuple[ImageSearch, Moment]]) -> None:
    """Give every moment its pixels."""
    unseen = {id(moment): (image, moment) for image, moment in rows if moment.pixels is None}
    if not unseen:
        return
    if any(moment.steps == 0 for _, moment in unseen.values()):
        raise ValueError("there is nothing to look at before a path's first step")
    pixels = sampler.decode(_stack([moment.guess for _, moment in unseen.values()]))
    for (image, moment), one in zip(unseen.values(), pixels, strict=True):
        moment.pixels = one
        image.decodes += 1


def _record(moment: Moment, question: str, p_yes: float) -> None:
    """An answer about what a path shows, for its trace."""
    moment.path.p_yes[question] = p_yes
    moment.path.trace.append(Judgement(moment.total, question, p_yes, moment.guess.cpu().numpy()))


def _stack(rows: Sequence[Any]) -> "Tensor":
    import torch

    return torch.stack(list(rows))


def _parts(rows: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def _split(values: Sequence[T], sizes: Sequence[int]) -> list[list[T]]:
    """Cut `values` into lists of the given sizes."""
    iterator = iter(values)
    return [[next(iterator) for _ in range(size)] for size in sizes]
