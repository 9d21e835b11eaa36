"""What jobs there are, read without importing them; the manual of one job with its config keys."""

import ast
import importlib
import importlib.util
import inspect
import json
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from genloop.registry import did_you_mean, lookup, not_from_here
from genloop.terminal import aligned

REQUIRED = "required"
_LONG_TYPE = 40  # characters


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
        raise ValueError(
            f"no module {name!r}; a job is a name of `genloop jobs` or a dotted module path{not_from_here(name)}"
        ) from None
    missing = [part for part in ("KIND", "Config", "main") if not hasattr(module, part)]
    if missing:
        raise ValueError(f"{name} is not a job: it has no {', '.join(missing)}")
    return module


def presets(job: str) -> dict[str, str]:
    """Name -> first line of the comment at its head, of all presets of a job; those in ./configs first."""
    from genloop.config import preset_roots  # with pydantic, which takes longer than all that `genloop jobs` does

    files = [file for root in reversed(preset_roots()) for file in sorted((root / job).glob("*.yaml"))]
    heads = {file.stem: file.read_text(encoding="utf-8").partition("\n")[0] for file in files}
    return {name: head.removeprefix("#").strip() if head.startswith("#") else "" for name, head in heads.items()}


def manual(module: ModuleType) -> str:
    """The job's docstring, its presets, its config keys with type, default and meaning, the options of named parts."""
    found = presets(module.__name__.rpartition(".")[2])
    shown = ["", "Presets", *aligned(list(found.items()), 2)] if found else []
    keys = ["", "Config keys (key=value): type = default; meaning", *_key_lines(_keys(module.Config), 2)]
    parts = [line for key, table, part in _parts(module.Config) for line in _options(key, table, part)]
    return "\n".join([inspect.getdoc(module) or "", *shown, *keys, *parts])


def key_names(model: Any) -> list[str]:
    """The dotted names of all config keys that are not inside of groups by any name."""
    return [row[0] for row in key_rows(model) if ".NAME." not in row[0]]


def key_rows(model: Any) -> Iterator[tuple[str, str, str, str]]:
    """(dotted name, type, default, meaning) of every config key; NAME stands for the names of a group by any name."""
    return _keys(model)


def _key_lines(rows: Iterable[tuple[str, str, str, str]], indent: int) -> list[str]:
    """Rows of `key_rows` as lines that fit the terminal."""
    return aligned([(key, _about(kind, default, meaning)) for key, kind, default, meaning in rows], indent)


def _about(kind: str, default: str, meaning: str) -> str:
    """int = 4; what it means"""
    shown = kind if len(kind) <= _LONG_TYPE else kind.replace("|", " | ")  # which can be wrapped
    return f"{shown}, required; {meaning}" if default == REQUIRED else f"{shown} = {default}; {meaning}"


def _options(key: str, table: Mapping[str, str], part: str) -> list[str]:
    """A section of the manual: the choices of a named part, and the options of each."""
    group = key.rpartition(".")[0]
    lines = ["", f"Choices of {key}, and the options of each; or module:class"]
    for name in table:
        rows = list(_keys(lookup(table, name, part).Options, f"{group}.options."))
        lines += [f"  {key}={name} " if rows else f"  {key}={name} (no options)", *_key_lines(rows, 4)]
    return [line.rstrip() for line in lines]


def _parts(model: Any, prefix: str = "") -> Iterator[tuple[str, Mapping[str, str], str]]:
    """(key, table of its choices, what they are) of every name of a part."""
    from genloop.config import OneOf

    for name, field in model.model_fields.items():
        marks = [mark for mark in field.metadata if isinstance(mark, OneOf)]
        if marks or (name == "kind" and hasattr(model, "table")):
            yield f"{prefix}{name}", marks[0].table if marks else model.table, getattr(model, "part", name)
        for kind in (field.annotation, *typing.get_args(field.annotation)):
            if isinstance(kind, type) and hasattr(kind, "model_fields"):
                is_group = typing.get_origin(field.annotation) is dict
                yield from _parts(kind, f"{prefix}{name}.{'NAME.' if is_group else ''}")


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
        shown = REQUIRED if field.is_required() else _value(field.get_default(call_default_factory=True))
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
