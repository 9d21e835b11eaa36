"""What jobs there are, read without importing them; the manual of one job with its config keys."""

import ast
import importlib
import importlib.util
import inspect
import json
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from genloop.registry import did_you_mean


def job_files() -> dict[str, Path]:
    """Name -> file of every job."""
    spec = importlib.util.find_spec("jobs")
    folders = spec.submodule_search_locations if spec and spec.submodule_search_locations else []
    files = [file for folder in folders for file in Path(folder).glob("*.py")]
    return {file.stem: file for file in sorted(files) if not file.stem.startswith("_")}


def summaries() -> dict[str, str]:
    """Name -> first line of the manual of every job."""
    trees = {name: ast.parse(file.read_text(encoding="utf-8")) for name, file in job_files().items()}
    return {name: (ast.get_docstring(tree) or "").partition("\n")[0] for name, tree in trees.items()}


def import_job(name: str) -> ModuleType:
    """The module of a job: a name of the `jobs` folder, or the dotted path of a job that lives elsewhere."""
    if "." not in name:
        known = list(job_files())
        if name not in known:
            raise ValueError(f"unknown job {name!r}{did_you_mean(name, known)} ({', '.join(known)})")
        return importlib.import_module(f"jobs.{name}")
    if not all(part.isidentifier() for part in name.split(".")):
        raise ValueError(f"{name!r} is no job; a job is a name of `genloop jobs` or a dotted module path")
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        here = " (nothing is imported from the current folder unless it is named in PYTHONPATH)"
        raise ValueError(
            f"no module {name!r}; a job is a name of `genloop jobs` or a dotted module path"
            + (here if Path(name.partition(".")[0]).exists() else "")
        ) from None
    missing = [part for part in ("KIND", "Config", "main") if not hasattr(module, part)]
    if missing:
        raise ValueError(f"{name} is not a job: it has no {', '.join(missing)}")
    return module


def manual(module: ModuleType) -> str:
    """The job's docstring, then its config keys with type, default and meaning."""
    keys = list(_keys(module.Config))
    widths = [max(len(row[column]) for row in keys) for column in range(3)]
    lines = ["  " + "  ".join(f"{cell:<{width}}" for cell, width in zip(row, [*widths, 0])).rstrip() for row in keys]
    return "\n".join([inspect.getdoc(module) or "", "", "Config keys (key=value): type, default, meaning", *lines])


def _keys(model: Any, prefix: str = "", given: Any = None) -> Iterator[tuple[str, str, str, str]]:
    """Of a model, or of an instance of it, in whose place parts by name have the options of the default part."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        default = getattr(given, name) if given is not None else field.get_default(call_default_factory=True)
        if getattr(type(default), "model_fields", None):
            yield from _keys(type(default), f"{prefix}{name}.", default)
            continue
        if isinstance(kind, type) and hasattr(kind, "model_fields"):
            yield from _keys(kind, f"{prefix}{name}.")
            continue
        shown = "required" if field.is_required() else _value(field.get_default(call_default_factory=True))
        yield f"{prefix}{name}", _type(kind), shown, field.description or ""
        for part in typing.get_args(kind) if typing.get_origin(kind) is dict else ():
            if hasattr(part, "model_fields"):
                yield from _keys(part, f"{prefix}{name}.NAME.")


def _value(value: Any) -> str:
    """A default as YAML has it."""
    return str(value) if isinstance(value, str | Path) else json.dumps(value, default=str)


def _type(annotation: Any) -> str:
    """A type as a user of YAML reads it: str, int, one|two, null."""
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _type(parts[0])
    if origin is typing.Literal:
        return "|".join(str(part) for part in parts)
    if origin in {typing.Union, types.UnionType}:
        return "|".join(_type(part) for part in parts)
    if parts:
        return f"{origin.__name__ if origin else annotation}[{', '.join(_type(p) for p in parts if p is not ...)}]"
    if annotation is type(None):
        return "null"
    return {"Path": "path", "Any": "any"}.get(annotation.__name__, annotation.__name__)
