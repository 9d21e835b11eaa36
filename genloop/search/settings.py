"""Which strategy, with which options: the config group of every job that searches. No torch."""

from typing import Annotated, Any

from pydantic import Field

from genloop.bounds import Repeats
from genloop.config import OneOf, Settings, part_name, part_options
from genloop.registry import lookup
from genloop.search import STRATEGIES


def strategy_class(name: str) -> Any:
    """The class behind a name, or behind "module:class"; ValueError with a suggestion when there is none."""
    return lookup(STRATEGIES, name, "strategy")


def starter_class(name: str, starts: str) -> Any:
    """The class of a strategy that makes the start for another one, `starts`, which cannot start itself."""
    if name == starts:
        raise ValueError(f"{starts} cannot start itself")
    return strategy_class(name)


class SearchSettings(Settings):
    """How candidates are spent. After validation `options` is an instance of the strategy's `Options`."""

    strategy: Annotated[str, part_name(strategy_class), OneOf(STRATEGIES)] = Field(
        "none", description=f"{', '.join(STRATEGIES)}, module:class"
    )
    n: Repeats = Field(1, description="candidates an image")
    options: Annotated[Any, part_options("strategy", strategy_class)] = Field(
        {}, validate_default=True, description="keys of that strategy"
    )

    @property
    def questions(self) -> tuple[str, ...]:
        """What the strategy asks a judge; nothing: it needs none."""
        return strategy_class(self.strategy).questions(self.options)

    def check(self, num_steps: int) -> None:
        """Refuse numbers that do not go together with a ValueError that names the config key."""
        strategy_class(self.strategy).check(self.n, num_steps, self.options)
