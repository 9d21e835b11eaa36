"""Which strategy, with which options: the config group of every job that searches. No torch."""

from typing import Any

from pydantic import Field, ValidationInfo, field_validator

from genloop.config import Settings, parse_options, refusal
from genloop.registry import lookup
from genloop.search import STRATEGIES


class SearchSettings(Settings):
    """How candidates are spent. After validation `options` is an instance of the strategy's `Options`."""

    strategy: str = Field("none", description=", ".join(STRATEGIES))
    n: int = Field(1, ge=1, description="candidates an image")
    options: Any = Field({}, validate_default=True, description="keys of that strategy")

    @field_validator("strategy")
    @classmethod
    def _known(cls, strategy: str) -> str:
        try:
            strategy_class(strategy)
        except ValueError as error:
            raise refusal(f": {error}") from None
        return strategy

    @field_validator("options", mode="plain")
    @classmethod
    def _parsed(cls, options: Any, info: ValidationInfo) -> Settings:
        name = info.data.get("strategy")  # None when it was refused already
        return parse_options(strategy_class(name).Options, options) if name else Settings()

    @property
    def questions(self) -> tuple[str, ...]:
        """What the strategy asks a judge; nothing: it needs none."""
        return strategy_class(self.strategy).questions(self.options)

    def check(self, num_steps: int) -> None:
        """Refuse numbers that do not go together with a ValueError that names the config key."""
        strategy_class(self.strategy).check(self.n, num_steps, self.options)


def strategy_class(name: str) -> Any:
    """The class behind a name; ValueError with a suggestion when there is none."""
    return lookup(STRATEGIES, name, "strategy")
