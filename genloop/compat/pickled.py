"""Checkpoints of PyTorch as other projects pickle them: plain tensors and values, and more only of files one trusts."""

import logging
import pickle
import re
import types
from pathlib import Path
from typing import Any

from genloop.checkpoint import load_plain
from genloop.registry import require

log = logging.getLogger(__name__)
_FOREIGN = re.compile(r"GLOBAL ([\w.]+)")  # in the words of PyTorch


def load_pickled(path: Path, *, trust: bool, how: str) -> Any:
    """What a file holds, on the CPU. Nothing that it names is run unless the file needs that and is `trust`ed.

    ValueError in one line for a torn file, and for one that holds more than plain tensors; `how` tells how to trust it.
    """
    try:
        return load_plain(path)
    except pickle.UnpicklingError as error:
        if not trust:
            named = _FOREIGN.search(str(error))
            what = f"more than plain tensors ({named[1]})" if named else "something else than plain tensors"
            raise ValueError(
                f"{path} holds {what}; if you trust its origin, {how}, which runs code that the file names"
            ) from None
    log.warning("%s: unpickled in full, which runs code that the file names", path)
    reader = types.SimpleNamespace(__name__="pickle", Unpickler=_Unpickler, load=pickle.load)
    try:
        return require("torch").load(path, map_location="cpu", weights_only=False, pickle_module=reader)
    except Exception as error:  # torn bytes lead a pickle anywhere
        raise ValueError(f"{path}: not readable as a checkpoint of PyTorch ({error}); download it again") from error


class _Absent:
    """In place of an object whose class is not installed, such as a training log of mmengine."""

    def __new__(cls, *args: Any, **kwargs: Any) -> "_Absent":
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Whatever it was made of is let go."""

    def __setstate__(self, state: Any) -> None:
        """Likewise."""


class _Unpickler(pickle.Unpickler):
    """Reads files that mention classes of packages that are not here."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        try:
            return super().find_class(module_name, global_name)
        except (ImportError, AttributeError):
            return _Absent
