"""A few threads for work that ends in order: pictures are encoded side by side and written one after the other."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, TypeVar

_THREADS = 3
P = TypeVar("P")
R = TypeVar("R")


class InOrder(Generic[R]):
    """A context in which `submit` returns at once. `keep` gets the results in order, in the thread that submits.

    The first error, of preparing or of finishing, is raised by a later `submit` or at the end; nothing behind it is
    finished. Leaving the context by an error gives up what has not begun.
    """

    def __init__(self, keep: Callable[[R], object]) -> None:
        self._keep = keep
        self._pool = ThreadPoolExecutor(_THREADS, "in-order")
        self._waiting: deque[Future[R]] = deque()

    def __enter__(self) -> "InOrder[R]":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            while kind is None and self._waiting:
                self._settle()
        finally:
            self._pool.shutdown(cancel_futures=True)

    def submit(self, prepare: Callable[[], P], finish: Callable[[P], R]) -> None:
        """`prepare` as soon as a thread is free, `finish` once all before it are finished; waits when many wait."""
        before = self._waiting[-1] if self._waiting else None

        def work() -> R:
            prepared = prepare()
            if before is not None:
                before.result()  # began earlier, so it ends; its error is this one's too
            return finish(prepared)

        self._waiting.append(self._pool.submit(work))
        while len(self._waiting) > 2 * _THREADS or (self._waiting and self._waiting[0].done()):
            self._settle()

    def _settle(self) -> None:
        self._keep(self._waiting.popleft().result())
