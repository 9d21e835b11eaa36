"""What strategies share: their options, their questions, and the scheduler that runs them for many images."""

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from genloop.config import Settings
from genloop.protocols import Judge, Sampler
from genloop.records import Choice, Prompt
from genloop.search.image import ImageSearch, Path, Steps
from genloop.search.schedule import Scheduler
from genloop.search.settings import strategy_class


class Search:
    """A strategy for one image, run for many; implements `genloop.protocols.Strategy`.

    A subclass writes `choose`, and what differs of the rest.
    """

    Options: ClassVar[type[Settings]] = Settings  # its config keys

    def __init__(self, sampler: Sampler[Any], judge: Judge | None, num_candidates: int, options: Any) -> None:
        self.check(num_candidates, sampler.num_steps, options)
        if judge is None and self.questions(options):
            raise ValueError(f"strategy {type(self).__name__} asks {', '.join(self.questions(options))}: give a judge")
        self.sampler, self.judge, self.num_candidates, self.options = sampler, judge, num_candidates, options

    @classmethod
    def questions(cls, options: Any) -> tuple[str, ...]:
        """What it asks a judge; nothing: it needs none."""
        return ("outcome",)

    @classmethod
    def check(cls, num_candidates: int, num_steps: int, options: Any) -> None:
        """Refuse numbers that do not go together with a ValueError that names the config key."""

    def choose(self, image: ImageSearch) -> Steps[Path]:
        """The search for one image: a generator of requests that ends in the path it chooses."""
        raise NotImplementedError

    def search(self, pairs: Sequence[tuple[Prompt, int]], run_seed: int) -> Iterator[Choice]:
        """One choice for each (prompt, sample) pair, in order, as soon as it is made."""
        return Scheduler(self.sampler, self.judge, self.choose).run(pairs, run_seed)


class Continued(Search):
    """Goes on from what another strategy has chosen: `options.start` with `options.start_options`."""

    def __init__(self, sampler: Sampler[Any], judge: Judge | None, num_candidates: int, options: Any) -> None:
        super().__init__(sampler, judge, num_candidates, options)
        self.start = strategy_class(options.start)(sampler, judge, num_candidates, options.start_options)

    @classmethod
    def questions_of_start(cls, options: Any) -> tuple[str, ...]:
        """What the strategy that makes the start asks a judge."""
        found: tuple[str, ...] = strategy_class(options.start).questions(options.start_options)
        return found

    @classmethod
    def check(cls, num_candidates: int, num_steps: int, options: Any) -> None:
        """The start's numbers."""
        strategy_class(options.start).check(num_candidates, num_steps, options.start_options)


def check_step(key: str, step: int, num_steps: int) -> None:
    """Refuse a step after which a path does not go on."""
    if not 1 <= step < num_steps:
        raise ValueError(f"search.options.{key}: step {step} is not one of 1 to {num_steps - 1}, before the last")
