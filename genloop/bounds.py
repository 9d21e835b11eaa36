"""The types of numbers in configs: each has a lower and an upper bound, so that no key can ask for what never ends.

The upper bounds are far above any use, and low enough for memory, file names and the operating system. A field that
needs narrower ones adds them: `n: Count = Field(2, ge=2)`.
"""

from typing import Annotated

from pydantic import Field

Total = Annotated[int, Field(ge=1, le=10**9)]  # things of a whole run: samples, training steps
TotalOrNone = Annotated[int, Field(ge=0, le=10**9)]  # the same, or none at all
Count = Annotated[int, Field(ge=1, le=10**6)]  # things that memory holds together: a batch, a unit, candidates
CountOrNone = Annotated[int, Field(ge=0, le=10**6)]
Repeats = Annotated[int, Field(ge=1, le=10_000)]  # of one thing: decoding steps, candidates, images of a prompt
Threads = Annotated[int, Field(ge=1, le=1024)]  # threads, processes or connections of one worker
ThreadsOrNone = Annotated[int, Field(ge=0, le=1024)]
Width = Annotated[int, Field(ge=1, le=1 << 17)]  # a dimension of a network, a side of an image
Layers = Annotated[int, Field(ge=1, le=1000)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Seconds = Annotated[float, Field(ge=0.01, le=1e7)]
SecondsOrNone = Annotated[float, Field(ge=0, le=1e7)]
Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0, le=1e9)]  # factors that may be nothing
Factor = Annotated[float, Field(ge=1e-9, le=1e9)]  # factors and divisors, above 0
Offset = Annotated[float, Field(ge=-1e9, le=1e9)]
