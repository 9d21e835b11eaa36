"""One scheduler serves the searches of many images: full batches of paths at any step, questions asked together.

Up to `sampler.slots` paths walk side by side. A path that is cut leaves its slot at once, to the next path of its image
or to the next image, which is opened when slots are free. Questions wait until as many rows wait as there are slots,
or nothing can walk, and are then asked together. Images are served in order; no answer knows what it was served with.
"""

from bisect import insort
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from genloop.job import note
from genloop.protocols import Judge, Sampler
from genloop.records import Choice, Prompt
from genloop.search.answers import SERVE, gather
from genloop.search.image import Compare, ImageSearch, Path, PathSnapshot, Request, Steps, TokenConfidence, Walk


@dataclass(eq=False)
class _Task:
    """One image: its search, its strategy's generator, what that waits for."""

    number: int
    image: ImageSearch
    steps: Steps[Path]
    request: Request | None = None
    walking: int = 0  # paths of a Walk that are not there yet

    @property
    def name(self) -> str:
        return f"prompt {self.image.prompt.index} {self.image.prompt.text!r}, sample {self.image.sample}"


class Scheduler:
    """Runs `choose`, a strategy for one image, for many."""

    def __init__(
        self, sampler: Sampler[Any], judge: Judge | None, choose: Callable[[ImageSearch], Steps[Path]]
    ) -> None:
        self.sampler, self.judge, self.choose = sampler, judge, choose
        self._walkers: list[tuple[_Task, Path]] = []  # by image
        self._asking: list[_Task] = []
        self._chosen: dict[int, Choice] = {}  # by number, until its turn comes

    def run(self, pairs: Sequence[tuple[Prompt, int]], run_seed: int) -> Iterator[Choice]:
        """One choice for each (prompt, sample) pair, in order, as soon as it is made."""
        opened = given = 0
        while given < len(pairs):
            while len(self._walkers) < self.sampler.slots and opened < len(pairs):
                self._open(opened, *pairs[opened], run_seed)
                opened += 1
            self._serve()
            while given in self._chosen:
                yield self._chosen.pop(given)
                given += 1

    def _open(self, number: int, prompt: Prompt, sample: int, run_seed: int) -> None:
        image = ImageSearch(prompt, sample, run_seed, self.sampler, self.judge)
        self._resume(_Task(number, image, self.choose(image)), None)

    def _resume(self, task: _Task, answer: Any) -> None:
        """Give a strategy its answer and take its next request."""
        with note(task.name):
            while True:
                try:
                    task.request = task.steps.send(answer)
                except StopIteration as end:
                    self._chosen[task.number] = task.image.choice(end.value)
                    return
                if not isinstance(task.request, Walk):
                    self._asking.append(task)
                    return
                going = [path for path in task.request.paths if path.steps < _end(path, task.request)]
                task.walking = len(going)
                for path in going:
                    insort(self._walkers, (task, path), key=lambda walker: walker[0].number)
                if going:
                    return
                answer = None

    def _serve(self) -> None:
        """One step of the walkers, or all answers that are waited for."""
        slots = self.sampler.slots
        is_full = len(self._walkers) >= slots
        if self._asking and (not is_full or sum(map(_rows, self._asking)) >= slots):
            self._answer()
        elif self._walkers:
            self._walk()

    def _walk(self) -> None:
        """One step of as many paths as there are slots; the strategies whose paths are all there go on."""
        going = self._walkers[: self.sampler.slots]
        with note(f"decoding {_names([task for task, _ in going])}"):
            state = self.sampler.step(gather(self.sampler, [path.now for _, path in going]))
        there: set[Path] = set()
        for row, (task, path) in enumerate(going):
            path.now = PathSnapshot(path, state, row, path.now.before)
            task.image.generator_steps += 1
            assert isinstance(task.request, Walk)
            if path.steps >= _end(path, task.request):
                there.add(path)
                task.walking -= 1
        if there:
            self._walkers = [walker for walker in self._walkers if walker[1] not in there]
            for task in dict.fromkeys(task for task, path in going if path in there):
                if task.walking == 0:
                    self._resume(task, None)

    def _answer(self) -> None:
        """Serve everything that is waited for, the same questions together; then the strategies go on."""
        asking, self._asking = self._asking, []
        groups: dict[Any, list[_Task]] = {}
        for task in asking:
            assert task.request is not None
            groups.setdefault((type(task.request), getattr(task.request, "question", None)), []).append(task)
        answers: dict[_Task, Any] = {}
        for (kind, question), tasks in groups.items():
            with note(f"asking {question or kind.__name__.lower()!r} about {_names(tasks)}"):
                served = SERVE[kind](self.sampler, self.judge, [(task.image, task.request) for task in tasks])
                answers |= zip(tasks, served, strict=True)
        for task in asking:
            self._resume(task, answers[task])


def _end(path: Path, walk: Walk) -> int:
    """Steps at which a path of a Walk is there."""
    return path.length if walk.to is None else min(walk.to, path.length)


def _rows(task: _Task) -> int:
    """How many rows a waiting request holds."""
    request = task.request
    assert request is not None and not isinstance(request, Walk)
    if isinstance(request, Compare):
        return len(request.first)
    return len(request.paths if isinstance(request, TokenConfidence) else request.snapshots)


def _names(tasks: Sequence[_Task]) -> str:
    """Which images, for an error; the first few of many."""
    names = list(dict.fromkeys(task.name for task in tasks))
    return "; ".join(names[:4]) + (f"; and {len(names) - 4} more" if len(names) > 4 else "")
