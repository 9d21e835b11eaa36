"""The baseline that looks at nothing: the diagnosis that the training split of a corpus holds most often.

Of equals the shorter, then the first by name. Severities and evidence are those of the first trace that has it.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from genloop.config import INPUT, Settings
from genloop.data.irg.actions import propose
from genloop.data.irg.corpus import Corpus
from genloop.data.irg.record import Diagnosis
from genloop.data.irg.text import refined
from genloop.factories import Resolve
from genloop.records import Critique
from genloop.rewards.critics.rules import features_of
from genloop.rewards.critics.settings import CriticMaker, Sight

SPLIT = "train"


class MajorityOptions(Settings):
    """Keys of `critic.kind=majority`."""

    shards: Annotated[Path, INPUT] = Field(description="run of build_irg, or folder of its shards")
    empty: bool = Field(True, description="count clean images too; false: always find something")


class MajorityMaker(CriticMaker):
    """The maker behind `majority`."""

    Options = MajorityOptions

    @classmethod
    def check(cls, options: MajorityOptions, resolve: Resolve) -> None:
        Corpus(options.shards, SPLIT)

    @classmethod
    def load(cls, options: MajorityOptions, resolve: Resolve, device: str) -> "MajorityCritic":
        found: dict[tuple[str, ...], tuple[Diagnosis, ...]] = {}
        counts: Counter[tuple[str, ...]] = Counter()
        for record in Corpus(options.shards, SPLIT):
            one = record.rounds[0]
            issues = tuple(sorted(diagnosis.issue for diagnosis in one.diagnosis))
            if issues or options.empty:
                counts[issues] += 1
                found.setdefault(issues, one.diagnosis)
        if not counts:
            raise ValueError(f"{options.shards}: every trace of the split {SPLIT!r} is clean")
        most = min(counts, key=lambda issues: (-counts[issues], len(issues), issues))
        return MajorityCritic(found[most])


class MajorityCritic:
    """Implements `genloop.rewards.critics.settings.ImageCritic`."""

    def __init__(self, found: Sequence[Diagnosis]) -> None:
        self.found = found

    def criticise(self, sights: Sequence[Sight]) -> list[Critique]:
        return [self._criticise(sight) for sight in sights]

    def _criticise(self, sight: Sight) -> Critique:
        actions = propose(sight.features, self.found, sight.intent, sight.instruction)
        return Critique(
            features_of(sight.features),
            diagnosis=[diagnosis.model_dump(mode="json") for diagnosis in self.found],
            actions=[action.model_dump(mode="json") for action in actions],
            prompt=refined(sight.instruction, self.found),
        )
