"""Which judge, with which options: the config group of every job that asks one. No torch.

`JUDGES` names makers. A maker is a class that knows, without loading anything, what its judge needs and answers.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Protocol

from pydantic import Field

from genloop.config import LAUNCH
from genloop.factories import Maker, PartSettings, Resolve
from genloop.protocols import Judge
from genloop.rewards import JUDGES

QUESTIONS = ("outcome", "clarity", "potential")


class JudgeMaker(Maker, Protocol):
    """What stands behind a name in `JUDGES`."""

    needs_metadata: ClassVar[bool] = False  # GenEval metadata beside the prompts
    asks_freely: ClassVar[bool] = False  # takes questions of any wording (genloop.protocols.Asker)

    @classmethod
    def questions(cls, options: Any, resolve: Resolve) -> tuple[str, ...]:
        """The questions it answers; "compare" stands for `p_first` (Comparer), "reason" for `reasons` (Critic).

        "refine" stands for `critiques` (Refiner).
        """
        return QUESTIONS

    @classmethod
    def classes(cls, options: Any) -> Sequence[str] | None:
        """The object classes that it knows; None: any."""
        return None

    @classmethod
    def load(cls, options: Any, resolve: Resolve, device: str) -> Judge:
        """The judge itself, on `device`."""
        ...


class JudgeSettings(PartSettings):
    """Who answers questions about images. After validation `options` is an instance of the maker's `Options`."""

    table: ClassVar = JUDGES
    part: ClassVar = "judge"

    kind: str = Field("shapes_oracle", description=f"{', '.join(JUDGES)}, module:class")
    cache: Annotated[Path | None, LAUNCH] = Field(None, description="folder of scores that are never asked for twice")
