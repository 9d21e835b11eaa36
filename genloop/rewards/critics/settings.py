"""Which critic, with which options: the config group of every job that asks one. No torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from pydantic import Field

from genloop.data.irg.record import Features, Intent, SceneSpec
from genloop.factories import Maker, PartSettings, Resolve
from genloop.records import Critique
from genloop.rewards.critics import CRITICS


@dataclass(frozen=True, slots=True, eq=False)
class Sight:
    """What a critic is shown: instruction, measured features, and the image (H, W, 3) uint8 for those that see.

    `wanted` and `shown` are what an oracle of content goes by, where a renderer drew the image; `tried` is what was
    taken back, in words. `asked` is the user's turn, word for word, where a corpus has one.
    """

    instruction: str
    features: Features
    intent: Intent = "neutral"
    image: np.ndarray | None = None
    wanted: SceneSpec | None = None
    shown: SceneSpec | None = None
    tried: Sequence[str] = ()
    asked: str | None = None


class ImageCritic(Protocol):
    """Deterministic; no answer depends on the sights beside it."""

    def criticise(self, sights: Sequence[Sight]) -> list[Critique]:
        """One critique each."""


class CriticMaker(Maker, Protocol):
    """What stands behind a name in `CRITICS`."""

    @classmethod
    def load(cls, options: Any, resolve: Resolve, device: str) -> ImageCritic:
        """The critic itself, on `device`."""
        ...


class CriticSettings(PartSettings):
    """Who criticises images. After validation `options` is an instance of the maker's `Options`."""

    table: ClassVar = CRITICS
    part: ClassVar = "critic"

    kind: str = Field("rules", description=f"{', '.join(CRITICS)}, module:class")


def build_critic(settings: CriticSettings, resolve: Resolve, device: str = "cpu") -> ImageCritic:
    """The critic on `device`."""
    return settings.maker.load(settings.options, resolve, device)
