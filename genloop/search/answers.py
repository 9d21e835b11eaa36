"""How the requests of many images are served together: previews decoded once, one call of the judge for a question.

Every row is charged to the image that asked. B = rows, n = image tokens, H, W = pixels.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from genloop.protocols import Judge, Sampler
from genloop.records import Critique, Judgement
from genloop.search.image import (
    Ask,
    Compare,
    Criticise,
    Explain,
    ImageSearch,
    Look,
    PathSnapshot,
    TokenConfidence,
)

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
Requests = Sequence[tuple[ImageSearch, Any]]  # of one kind; an Ask of one question


def gather(sampler: Sampler[Any], snapshots: Sequence[PathSnapshot]) -> Any:
    """The rows of snapshots as one state of the sampler."""
    runs: list[tuple[Any, list[int]]] = []
    for snapshot in snapshots:
        if not runs or runs[-1][0] is not snapshot.state:
            runs.append((snapshot.state, []))
        runs[-1][1].append(snapshot.row)
    parts = [state if rows == list(range(len(state))) else state.select(rows) for state, rows in runs]
    return parts[0] if len(parts) == 1 else sampler.join(parts)


def _ask(sampler: Sampler[Any], judge: Judge | None, asked: Requests) -> list[list[float]]:
    """P(yes) of every row of every Ask; recorded in the trace of its path unless it is about other pixels."""
    assert judge is not None
    question = asked[0][1].question
    rows = [(image, snapshot, i, request) for image, request in asked for i, snapshot in enumerate(request.snapshots)]
    answers: list[float] = []
    for part in _parts(rows, sampler.slots):
        _decode(sampler, [(image, snapshot) for image, snapshot, _, request in part if request.images is None])
        pixels = [snapshot.pixels if request.images is None else request.images[i] for _, snapshot, i, request in part]
        answers += judge.p_yes(question, [image.prompt for image, *_ in part], _stack(pixels)).tolist()
    for (image, snapshot, _, request), p_yes in zip(rows, answers, strict=True):
        before = snapshot.asked if request.images is None else ()
        image.charge((*before, question), before)
        if request.images is None:
            snapshot.asked = (*before, question)
            _record(snapshot, question, p_yes)
    return _split(answers, [len(request.snapshots) for _, request in asked])


def _look(sampler: Sampler[Any], judge: Judge | None, asked: Requests) -> "list[Tensor]":
    """The pixels of every Look."""
    for part in _parts([(image, snapshot) for image, look in asked for snapshot in look.snapshots], sampler.slots):
        _decode(sampler, part)
    return [_stack([snapshot.pixels for snapshot in look.snapshots]) for _, look in asked]


def _compare(sampler: Sampler[Any], judge: Any, asked: Requests) -> list[list[float]]:
    """P(the first is better) of every pair of every Compare; in the traces: P(better than the other)."""
    pairs = [(image, pair) for image, request in asked for pair in zip(request.first, request.second, strict=True)]
    answers: list[float] = []
    for part in _parts(pairs, sampler.slots):
        _decode(sampler, [(image, snapshot) for image, pair in part for snapshot in pair])
        first, second = (_stack([pair[side].pixels for _, pair in part]) for side in (0, 1))
        answers += judge.p_first([image.prompt for image, _ in part], first, second).tolist()
    for (image, pair), p_first in zip(pairs, answers, strict=True):
        for snapshot, p_yes in zip(pair, (p_first, 1 - p_first)):
            image.charge(("outcome",))
            _record(snapshot, "compare", p_yes)
    return _split(answers, [len(request.first) for _, request in asked])


def _explain(sampler: Sampler[Any], judge: Any, asked: Requests) -> list[list[str]]:
    """The reasons of every row of every Explain, which their paths keep."""
    rows = [(image, snapshot) for image, request in asked for snapshot in request.snapshots]
    answers: list[str] = []
    for part in _parts(rows, sampler.slots):
        _decode(sampler, part)
        said = judge.reasons([image.prompt for image, _ in part], _stack([snapshot.pixels for _, snapshot in part]))
        answers += [reason or "" for reason in said]
    for (image, snapshot), reason in zip(rows, answers, strict=True):
        image.charge(("outcome",))
        snapshot.path.reason = reason
    return _split(answers, [len(request.snapshots) for _, request in asked])


def _criticise(sampler: Sampler[Any], judge: Any, asked: Requests) -> list[list[Critique]]:
    """The critiques of every row of every Criticise, which their paths keep."""
    rows = [(image, snapshot) for image, request in asked for snapshot in request.snapshots]
    answers: list[Critique] = []
    for part in _parts(rows, sampler.slots):
        _decode(sampler, part)
        prompts = [snapshot.path.prompt or image.prompt for image, snapshot in part]
        answers += judge.critiques(prompts, _stack([snapshot.pixels for _, snapshot in part]))
    for (image, snapshot), critique in zip(rows, answers, strict=True):
        image.charge(("refine",))
        snapshot.path.critique = critique
    return _split(answers, [len(request.snapshots) for _, request in asked])


def _confidence(sampler: Sampler[Any], judge: Judge | None, asked: Requests) -> "list[Tensor]":
    """The confidence (B, n) of the paths of every TokenConfidence."""
    import torch

    snapshots = [path.now for _, request in asked for path in request.paths]
    found = torch.cat([sampler.confidence(gather(sampler, part)) for part in _parts(snapshots, sampler.slots)])
    for image, request in asked:
        image.generator_steps += 1.5 * len(request.paths)
    return list(found.split([len(request.paths) for _, request in asked]))


SERVE: dict[type, Callable[[Sampler[Any], Any, Requests], list[Any]]] = {
    Ask: _ask,
    Look: _look,
    Compare: _compare,
    Explain: _explain,
    Criticise: _criticise,
    TokenConfidence: _confidence,
}


def _decode(sampler: Sampler[Any], rows: Sequence[tuple[ImageSearch, PathSnapshot]]) -> None:
    """Give every snapshot its pixels."""
    unseen = {id(snapshot): (image, snapshot) for image, snapshot in rows if snapshot.pixels is None}
    if not unseen:
        return
    if any(snapshot.steps == 0 for _, snapshot in unseen.values()):
        raise ValueError("there is nothing to look at before a path's first step")
    pixels = sampler.decode(_stack([snapshot.guess for _, snapshot in unseen.values()]))
    for (image, snapshot), one in zip(unseen.values(), pixels, strict=True):
        snapshot.pixels = one
        image.decodes += 1


def _record(snapshot: PathSnapshot, question: str, p_yes: float) -> None:
    """An answer about what a path shows, for its trace."""
    snapshot.path.p_yes[question] = p_yes
    snapshot.path.trace.append(Judgement(snapshot.total, question, p_yes, snapshot.guess.cpu().numpy()))


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
