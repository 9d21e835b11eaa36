"""The rule oracle of the refinement corpus as a critic: thresholds on measured features, and the renderer's scenes."""

from collections.abc import Sequence
from typing import Any

from genloop.config import Settings
from genloop.data.irg.actions import propose
from genloop.data.irg.diagnose import diagnose, diagnose_content
from genloop.data.irg.phrases import FEATURES, ISSUE_NAMES
from genloop.data.irg.record import Diagnosis, Features
from genloop.data.irg.text import evidence_texts, refined
from genloop.factories import Resolve
from genloop.records import Critique
from genloop.rewards.critics.settings import CriticMaker, Sight


class RulesMaker(CriticMaker):
    """The maker behind `rules`: no options, nothing to load."""

    Options = Settings

    @classmethod
    def load(cls, options: Settings, resolve: Resolve, device: str) -> "RuleCritic":
        return RuleCritic()


class RuleCritic:
    """Implements `genloop.rewards.critics.settings.ImageCritic`."""

    def criticise(self, sights: Sequence[Sight]) -> list[Critique]:
        """What the thresholds say, and what the scene shows otherwise than it was asked for."""
        return [_criticised(sight) for sight in sights]


def _criticised(sight: Sight) -> Critique:
    found = diagnose(sight.features, sight.intent)
    if sight.wanted is not None and sight.shown is not None:
        found = (*diagnose_content(sight.wanted, sight.shown), *found)
    actions = propose(sight.features, found, sight.intent, sight.instruction)
    return Critique(
        features_of(sight.features),
        " ".join(map(_sentence, found)) or "Nothing is beyond its limit.",
        [diagnosis.model_dump(mode="json") for diagnosis in found],
        [action.model_dump(mode="json") for action in actions],
        refined(sight.instruction, found),
    )


def features_of(features: Features) -> dict[str, float]:
    """The measured ones, by name."""
    return {name: value for name, value in features.model_dump().items() if value is not None}


def _sentence(diagnosis: Diagnosis) -> str:
    """Severity 0.42, underexposure: brightness 0.213 below 0.34."""
    parts: list[Any] = []
    for evidence in diagnosis.evidence:
        value, threshold = evidence_texts(evidence)
        parts.append(f"{FEATURES.get(evidence.feature, evidence.feature)} {value} {evidence.relation} {threshold}")
    return f"Severity {diagnosis.severity:.2f}, {ISSUE_NAMES[diagnosis.issue]}: {', '.join(parts)}."
