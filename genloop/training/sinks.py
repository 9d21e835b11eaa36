"""Where else the numbers of metrics.jsonl are shown: TensorBoard, wandb, trackio, or a class of one's own. No torch.

metrics.jsonl stays the truth: a sink follows that file on rank 0 and gets each of its lines once. RUN/sinks.json says
how far each has got, before a line is sent; so a resumed run, which writes some lines again, doubles none, a sink that
is named later gets all lines from the first on, and a kill in the middle loses the one line that was on its way.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

from genloop.config import read_yaml
from genloop.reading import object_or_empty, read_object_or_empty
from genloop.registry import check_installed, lookup, require
from genloop.rundir import read_run, write_json

SINKS = {
    "tensorboard": "genloop.training.sinks:TensorBoard",
    "wandb": "genloop.training.sinks:Wandb",
    "trackio": "genloop.training.sinks:Trackio",
}
EXTRA, STATE = "sinks", "sinks.json"
PROJECT = "genloop"


class Sink(Protocol):
    """Takes numbers by step. Made with the run folder, once a process."""

    package: ClassVar[str | None] = None  # what it needs beside genloop

    def __init__(self, run: Path) -> None: ...

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """The numbers of one line; steps never fall, several lines may have one."""

    def close(self) -> None:
        """Nothing more will come from this process."""


def check_sinks(names: Sequence[str]) -> None:
    """ValueError for a sink that nobody knows, MissingPackage for one whose package is not installed."""
    for name in names:
        try:
            kind = lookup(SINKS, name, "sink")
        except ValueError as error:
            raise ValueError(f"train.sinks: {error}") from None
        if kind.package is not None:
            check_installed(kind.package, EXTRA)


class Followers:
    """The sinks of a run, which follow its metrics.jsonl."""

    def __init__(self, names: Sequence[str], run: Path) -> None:
        self._run = run
        self._sinks: dict[str, Sink] = {name: lookup(SINKS, name, "sink")(run) for name in names}
        known = read_object_or_empty(run / STATE)
        self._sent = {name: tuple(known.get(name, (-1, 0))) for name in names}  # step, lines of that step
        self._all = {name: tuple(place) for name, place in known.items()} | self._sent
        self._offset, self._place = 0, (-1, 0)

    def follow(self) -> None:
        """Send what was written since the last call."""
        for line in self._new_lines() if self._sinks else ():
            step = line["step"]
            self._place = (step, self._place[1] + 1 if step == self._place[0] else 1)
            late = [name for name, sent in self._sent.items() if sent < self._place]
            if not late:
                continue
            self._sent |= dict.fromkeys(late, self._place)
            self._all |= self._sent
            write_json(self._run / STATE, self._all)
            numbers = {key: float(value) for key, value in line.items() if key != "step" and _is_number(value)}
            for name in late:
                self._sinks[name].write(step, numbers)

    def close(self) -> None:
        """The end of this process."""
        for sink in self._sinks.values():
            sink.close()

    def _new_lines(self) -> Iterator[dict[str, Any]]:
        with open(self._run / "metrics.jsonl", "rb") as file:
            file.seek(self._offset)
            whole = file.read().rpartition(b"\n")[0]
        self._offset += len(whole) + 1 if whole else 0
        rows = map(object_or_empty, whole.split(b"\n"))
        return (row for row in rows if type(row.get("step")) is int)


class TensorBoard(Sink):
    """Event files in RUN/tensorboard."""

    package = "tensorboard"

    def __init__(self, run: Path) -> None:
        require("tensorboard", EXTRA)
        self._writer = require("torch.utils.tensorboard").SummaryWriter(run / "tensorboard")

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """Scalars by their names."""
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        """Close the event file."""
        self._writer.close()


class Wandb(Sink):
    """A run of the project `genloop`, or of $WANDB_PROJECT; resumed by the digest of the run's fingerprint."""

    package = "wandb"

    def __init__(self, run: Path) -> None:
        found = read_run(run)
        self._run = require("wandb", EXTRA).init(
            project=None if "WANDB_PROJECT" in os.environ else PROJECT,
            id=found["digest"][:32] if found else None,
            name=run.name,
            dir=str(run.resolve()),
            config=_config(run),
            resume="allow",
        )

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """The numbers of a line; those of one step become one row."""
        self._run.log(dict(numbers), step=step)

    def close(self) -> None:
        """Send what is left."""
        self._run.finish()


class Trackio(Sink):
    """A run of the project `genloop`, resumed by its name: that of the run folder and the digest of its fingerprint."""

    package = "trackio"

    def __init__(self, run: Path) -> None:
        found = read_run(run)
        name = f"{run.name}-{found['digest'][:8]}" if found else run.name
        self._trackio = require("trackio", EXTRA)
        self._trackio.init(project=PROJECT, name=name, config=_config(run), resume="allow")

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """The numbers of a line."""
        self._trackio.log(dict(numbers), step=step)

    def close(self) -> None:
        """Write what is left."""
        self._trackio.finish()


def _config(run: Path) -> dict[str, Any]:
    path = run / "config.yaml"
    return read_yaml(path) if path.is_file() else {}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
