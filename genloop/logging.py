"""Logging set-up: one line an event, the rank in every line, to standard error."""

import logging
import sys

FORMAT = "%(asctime)s %(levelname).1s rank{rank} %(name)s: %(message)s"


def set_up(rank: int, *, level: int = logging.INFO) -> None:
    """Send the log of this process to standard error with its rank."""
    stream = logging.StreamHandler(sys.stderr)
    stream.setFormatter(logging.Formatter(FORMAT.format(rank=rank), datefmt="%H:%M:%S"))
    root = logging.getLogger()
    root.handlers[:] = [stream]
    root.setLevel(level)
    logging.getLogger("httpx").setLevel(logging.WARNING)
