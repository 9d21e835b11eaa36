"""What a job can say before it runs: how much there is to do, and what a worker will hold. No torch.

A job module may have `work(config) -> Workload`, which reads its input alone and no checkpoint, and
`footprint(config, checked, *, device, ranks) -> Footprint`, which rehearses one step as a worker of `ranks` would do it
on `device` (cpu or cuda); `config.out` is then a folder that is thrown away.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Workload:
    """Items that are cut into units, and the lines of input (what `limit` counts) that they come from."""

    items: int
    lines: int


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes of one worker: what it holds by part, the most it needs beside that, what the run leaves on disk."""

    parts: Mapping[str, int]
    working: int
    disk: Mapping[str, int] = field(default_factory=dict)

    @property
    def peak(self) -> int:
        """The most that is held at a time."""
        return sum(self.parts.values()) + self.working
