"""The job `generate` with one more judge, which has an opinion on everything.

python -m tests.worlds.judged_generate tiny out=RUN judge.kind=opinions search.strategy=parm search.n=4
"""

from typing import Any

from pydantic import Field

from genloop.config import Settings
from genloop.factories import Resolve
from genloop.job import run
from genloop.rewards import JUDGES
from genloop.rewards.settings import QUESTIONS, JudgeMaker
from jobs.generate import Config, main
from tests.worlds.tiny_search import Opinions

JUDGES["opinions"] = "tests.worlds.judged_generate:OpinionsMaker"


class OpinionsMaker(JudgeMaker):
    """Makes a judge of hashes."""

    class Options(Settings):
        unknown: float = Field(0.0, ge=0, le=1, description="share of images about which it has no answer")

    @classmethod
    def questions(cls, options: Any, resolve: Resolve) -> tuple[str, ...]:
        """What strategies ask of it."""
        return *QUESTIONS, "refine"

    @classmethod
    def load(cls, options: Any, resolve: Resolve, device: str) -> Opinions:
        """Nothing to load."""
        return Opinions(options.unknown)


if __name__ == "__main__":
    run(main, Config)
