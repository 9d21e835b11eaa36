"""Logging set-up: one line an event, the rank in every line, to standard error."""

import logging
import os
import sys
import traceback
import warnings

from genloop.terminal import clean, err

FORMAT = "%(asctime)s %(levelname).1s rank{rank} %(name)s: %(message)s"


class CleanFormatter(logging.Formatter):
    """Lines as they may be shown on a terminal; their texts may come from anywhere."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, and the traceback below it."""
        return clean(super().format(record))


def set_up_messages() -> None:
    """Show what a command warns of before a job's log begins, and what nobody catches, as clean messages."""
    stream = logging.StreamHandler(sys.stderr)
    stream.setFormatter(CleanFormatter("genloop: %(message)s"))
    logging.basicConfig(handlers=[stream], level=logging.WARNING)
    _quieten()
    sys.excepthook = lambda kind, error, trace: err("".join(traceback.format_exception(kind, error, trace)))


def set_up(rank: int) -> None:
    """Send the log of this process to standard error with its rank.

    What a package tells without its name (open_clip does) is not shown unless it is a warning.
    """
    stream = logging.StreamHandler(sys.stderr)
    stream.setFormatter(CleanFormatter(FORMAT.format(rank=rank), datefmt="%H:%M:%S"))
    stream.addFilter(lambda record: record.name != "root" or record.levelno >= logging.WARNING)
    root = logging.getLogger()
    root.handlers[:] = [stream]
    root.setLevel(logging.INFO)
    _quieten()


def _quieten() -> None:
    """What packages tell too often: a line for each request; which optional kernels and packages are missing."""
    for name in ("httpx", "httpx2", "openai"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in ("bitsandbytes", "torchao", "diffusers.quantizers", "torch.utils._pytree"):
        logging.getLogger(name).setLevel(logging.ERROR)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # it sets the level of its own log when it is imported
    warnings.filterwarnings("ignore", ".*FluxPosEmbed", FutureWarning)  # between two modules of diffusers
