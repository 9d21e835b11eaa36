"""Lazy tables of names: plain dicts of "module:attribute" strings, and one way to import heavy packages.

A table stays greppable and costs nothing until a name is looked up.
"""

import difflib
import importlib
import importlib.util
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from genloop.compat import mmcv_operators, torchvision_operators

INSTALL = {  # extras that take more than `pip install 'genloop[EXTRA]'`; deepspeed's setup.py asks for torch and CUDA
    "train": "DS_ACCELERATOR=cpu DS_BUILD_OPS=0 pip install --no-build-isolation 'genloop[train]'"
}


class MissingPackage(ImportError):
    """An optional package that this job needs is not installed."""


def require(package: str, extra: str | None = None) -> ModuleType:
    """Import `package`; when it is absent, say which extra installs it."""
    root = package.partition(".")[0]
    if root in torchvision_operators.USERS | mmcv_operators.USERS:
        torchvision_operators.declare_torchvision_operators()
    if root in mmcv_operators.USERS:
        mmcv_operators.install_mmcv_operators()
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != root:
            raise
        raise _missing(root, extra) from error


def check_installed(package: str, extra: str | None = None) -> None:
    """What `require` would say, without importing anything."""
    if importlib.util.find_spec(package) is None:
        raise _missing(package, extra)


def _missing(root: str, extra: str | None) -> MissingPackage:
    target = f"'genloop[{extra}]'" if extra else root
    command = INSTALL.get(extra or "", f"pip install {target}")
    return MissingPackage(f"{root} is not installed; run: {command}")


def load(path: str) -> Any:
    """Import the attribute behind "module:attribute"."""
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)


def lookup(table: Mapping[str, str], name: str, what: str) -> Any:
    """What `name` stands for in `table`, or is itself as "module:attribute"; ValueError when there is none."""
    if ":" in name:
        return _load_own(name, what)
    if name not in table:
        raise ValueError(f"unknown {what} {name!r}{did_you_mean(name, table)} ({', '.join(table)})")
    return load(table[name])


def _load_own(path: str, what: str) -> Any:
    try:
        return load(path)
    except (ImportError, AttributeError, ValueError, TypeError) as error:  # an empty or a relative module name
        raise ValueError(f"{what} {path!r} cannot be imported: {error}{not_from_here(path)}") from None


def not_from_here(path: str) -> str:
    """A hint when a module that is not found lies in the current folder, from which nothing is imported by itself."""
    top = Path(path.partition(":")[0].partition(".")[0] or "?")
    if not (top.is_dir() or top.with_suffix(".py").is_file()) or importlib.util.find_spec(top.name):
        return ""
    return " (nothing is imported from the current folder by itself; put PYTHONPATH=. before the command)"


def did_you_mean(name: str, options: Iterable[str]) -> str:
    """ "; did you mean 'x'?" for the closest option, or an empty string."""
    close = difflib.get_close_matches(name, list(options), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
