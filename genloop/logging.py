"""Logging set-up: one line an event, the rank in every line, to standard error."""

import logging
import sys

FORMAT = "%(asctime)s %(levelname).1s rank{rank} %(name)s: %(message)s"


def set_up(rank: int, *, level: int = logging.INFO) -> None:
    """Send the log of this process to standard error with its rank.

    What a package tells without its name (open_clip does) is not shown unless it is a warning.
    """
    stream = logging.StreamHandler(sys.stderr)
    stream.setFormatter(logging.Formatter(FORMAT.format(rank=rank), datefmt="%H:%M:%S"))
    stream.addFilter(lambda record: record.name != "root" or record.levelno >= logging.WARNING)
    root = logging.getLogger()
    root.handlers[:] = [stream]
    root.setLevel(level)
    for name in ("httpx", "httpx2", "openai"):  # a line for each request
        logging.getLogger(name).setLevel(logging.WARNING)
