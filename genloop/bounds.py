"""The types of numbers in configs: each has a lower and an upper bound, so that no key can ask for what never ends.

The upper bounds are far above any use, and low enough for memory, file names and the operating system. A field that
needs narrower ones adds them: `n: Count = Field(2, ge=2)`.
"""

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema


@dataclass(frozen=True)
class Bounds:
    """The widest range of a number: unlike `Field(ge=, le=)`, it leaves a narrower one that a field adds as it is."""

    ge: float
    le: float

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema: dict[str, Any] = dict(handler(source))
        schema["ge"] = max(self.ge, schema.get("ge", self.ge))
        schema["le"] = min(self.le, schema.get("le", self.le))
        return schema


Total = Annotated[int, Bounds(1, 10**9)]  # things of a whole run: samples, training steps
TotalOrNone = Annotated[int, Bounds(0, 10**9)]  # the same, or none at all
Count = Annotated[int, Bounds(1, 10**6)]  # things that memory holds together: a batch, a unit, candidates
CountOrNone = Annotated[int, Bounds(0, 10**6)]
Repeats = Annotated[int, Bounds(1, 10_000)]  # of one thing: decoding steps, candidates, images of a prompt
Threads = Annotated[int, Bounds(1, 1024)]  # threads, processes or connections of one worker
ThreadsOrNone = Annotated[int, Bounds(0, 1024)]
Width = Annotated[int, Bounds(1, 1 << 17)]  # a dimension of a network, a side of an image
Layers = Annotated[int, Bounds(1, 1000)]
Seed = Annotated[int, Bounds(0, 2**63 - 1)]
Seconds = Annotated[float, Bounds(0.01, 1e7)]
SecondsOrNone = Annotated[float, Bounds(0, 1e7)]
Share = Annotated[float, Bounds(0, 1)]
Weight = Annotated[float, Bounds(0, 1e9)]  # factors that may be nothing
Factor = Annotated[float, Bounds(1e-9, 1e9)]  # factors and divisors, above 0
Offset = Annotated[float, Bounds(-1e9, 1e9)]
