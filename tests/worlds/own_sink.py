"""A sink that keeps what it gets in a file beside the run; it may die of its n-th line."""

import json
from collections.abc import Mapping
from pathlib import Path

from genloop.training.sinks import Sink


class FileSink(Sink):
    """One JSON line a call, in RUN/own_sink.jsonl."""

    die_at: int | None = None

    def __init__(self, run: Path) -> None:
        self._file, self._sent = open(run / "own_sink.jsonl", "a", encoding="utf-8"), 0  # noqa: SIM115 - see close

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        self._sent += 1
        if self._sent == self.die_at:
            raise KeyboardInterrupt
        self._file.write(json.dumps({"step": step, **numbers}) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def received(run: Path) -> list[dict]:
    """All that the sinks of a run got, without what measures time."""
    rows = [json.loads(line) for line in (run / "own_sink.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{key: value for key, value in row.items() if not key.endswith(("_per_s", "cpu_seconds"))} for row in rows]
