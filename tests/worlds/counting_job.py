"""Count to the limit: the smallest real job, for tests of the runner and the launcher.

    python -m tests.worlds.counting_job out=RUN limit=6

Reads nothing. Writes RUN/rows. `fail_at` raises at an item, `slow` sleeps at every item.
"""

import signal
import time
from pathlib import Path

from pydantic import Field

from genloop.config import IndependentConfig, InputPath
from genloop.distributed import World
from genloop.job import note, run
from genloop.ledger import Ledger, plan_units

KIND = "independent"


class Config(IndependentConfig):
    limit: int = Field(6, ge=1)
    unit_size: int = 2
    fail_at: int | None = None
    fail_unless: Path | None = None  # fail only while this file is missing: a cause that can be mended
    hang_at: int | None = None
    slow: float = 0.0
    forbidden: bool = False
    interrupted: bool = False  # as by Ctrl-C, while the input is checked
    source: InputPath | None = None


def check(config: Config) -> None:
    """Refuse on request."""
    if config.forbidden:
        raise ValueError("forbidden: this config is forbidden")
    if config.interrupted:
        signal.raise_signal(signal.SIGINT)


def main(config: Config, world: World, checked: None) -> None:
    with Ledger.of(config, plan_units(config.limit, config.unit_size), world) as ledger:
        for unit in ledger.claims():
            with ledger.working(unit):
                rows = []
                for item in range(unit.start, unit.stop):
                    world.check_stop()
                    time.sleep(600 if item == config.hang_at else config.slow)
                    with note(f"item {item}"):
                        if item == config.fail_at and not (config.fail_unless and config.fail_unless.exists()):
                            raise ArithmeticError(f"cannot count to {item}")
                    rows.append({"item": item})
                    ledger.advance(1)
                ledger.complete(unit, rows)


if __name__ == "__main__":
    run(main, Config)
