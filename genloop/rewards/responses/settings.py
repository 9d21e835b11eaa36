"""Which judge of answers, with which options: the config group of every job that judges answers. No torch."""

import hashlib
import json
from typing import Any, ClassVar, Literal, Protocol

from pydantic import Field

from genloop import __version__
from genloop.factories import Maker, PartSettings, Resolve
from genloop.protocols import ResponseJudge, ResponseScorer, ResponseWriter
from genloop.rewards.responses import RESPONSE_JUDGES

Reading = Literal["likelihood", "pmi", "verdict", "generated", "score"]  # ways to ask a judge about two answers
BY_LIKELIHOOD: tuple[Reading, ...] = ("likelihood", "pmi", "verdict")  # those of `ResponseJudge.likelihoods`


class ResponseMaker(Maker, Protocol):
    """What stands behind a name in `RESPONSE_JUDGES`."""

    readings: ClassVar[tuple[Reading, ...]] = (*BY_LIKELIHOOD, "generated")  # what its judge can be asked

    @classmethod
    def facts(cls, options: Any, resolve: Resolve) -> dict[str, Any]:
        """What people want to know beside the fingerprint, as JSON: family, dtype, size of the images."""
        return {}

    @classmethod
    def load(cls, options: Any, resolve: Resolve, device: str) -> ResponseJudge | ResponseWriter | ResponseScorer:
        """The judge itself, on `device`: a ResponseScorer where `readings` has "score", a ResponseWriter where it has
        "generated", a ResponseJudge where it has any of the others.
        """
        ...


class ResponseJudgeSettings(PartSettings):
    """Who judges answers. After validation `options` is an instance of the maker's `Options`."""

    table: ClassVar = RESPONSE_JUDGES
    part: ClassVar = "response judge"

    kind: str = Field("chat", description=f"{', '.join(RESPONSE_JUDGES)}, module:class")

    def fingerprint(self, resolve: Resolve) -> dict[str, Any]:
        """Kind, facts, and a sha256 of what the judge's answers depend on: options, the content of its files, us."""
        body = json.dumps([__version__, *self.identity(resolve)], sort_keys=True)
        told = self.maker.facts(self.options, resolve)
        return {"kind": self.kind, **told, "fingerprint": hashlib.sha256(body.encode()).hexdigest()}
