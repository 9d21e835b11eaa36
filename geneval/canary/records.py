"""What canaries are held against: answers by kind, options and sha256 of the weights.

`canary.yaml` holds those that come with genloop. `FOLDER.canary.json`, beside a checkpoint's folder or file, holds
those that `canary=record` found on some machine; copied along with the checkpoint it binds other machines and versions.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from geneval.settings import EvaluatorKeys, evaluator_inputs
from genloop.config import read_yaml
from genloop.factories import Resolve
from genloop.reading import read_json_object
from genloop.rundir import write_json
from genloop.runs.provenance import keys_below

SHIPPED = Path(__file__).with_name("canary.yaml")
TOLERANCE = {"detector": 0.02, "colors": 0.1}  # scores of 0..1; CLIP's are 100 times a cosine


@dataclass(frozen=True, slots=True)
class Part:
    """A detector or colour classifier as a run's fingerprint knows it; `place`: where its answers may be recorded."""

    name: str  # detector, colors
    kind: str
    options: Mapping[str, Any]
    weights: Mapping[str, str]  # {option: sha256}
    place: Path | None = None

    @property
    def key(self) -> dict[str, Any]:
        """What a record must have in common with it."""
        return {"part": self.name, "kind": self.kind, "options": dict(self.options), "weights": dict(self.weights)}


@dataclass(frozen=True, slots=True)
class Record:
    """Answers that are right; `place` is None for those that come with genloop."""

    seen: Mapping[str, Any]
    tolerance: float
    place: Path | None = None


def parts_of(keys: EvaluatorKeys, resolve: Resolve, fingerprint: Mapping[str, Any]) -> dict[str, Part]:
    """Both parts of an evaluation, with the weights' hashes from the fingerprint of its run."""
    found = {}
    for name, place in _places(keys, resolve).items():
        options, weights = (keys_below(fingerprint[group], f"{name}.options.") for group in ("keys", "inputs"))
        found[name] = Part(name, fingerprint["keys"][f"{name}.kind"], options, weights, place)
    return found


def find_record(part: Part, *, shipped_only: bool = False) -> Record | None:
    """The answers that are known of a part; those that come with genloop first. ValueError for a damaged file."""
    shipped = [(entry, None) for entry in read_yaml(SHIPPED).get("records") or []]
    beside = [] if shipped_only else [(entry, part.place) for entry in _beside(part)]
    for entry, place in [*shipped, *beside]:
        if {key: entry.get(key) for key in part.key} == part.key:
            return Record(entry["seen"], float(entry.get("tolerance", TOLERANCE[part.name])), place)
    return None


def other_weights(part: Part) -> Mapping[str, str] | None:
    """The weights that a file beside the checkpoint is about, if it is about that kind and options with others only."""
    keys = ("part", "kind", "options")
    same = [entry for entry in _beside(part) if all(entry.get(key) == part.key[key] for key in keys)]
    found = [entry.get("weights", {}) for entry in same]
    return found[-1] if found and dict(part.weights) not in found else None


def write_record(part: Part, seen: Mapping[str, Any], made: Mapping[str, Any]) -> Path | None:
    """Note a part's answers beside its checkpoint -> the file; None for a part without weights. `made`: on what."""
    if part.place is None or not part.weights:
        return None
    others = [entry for entry in _read(part.place) if {key: entry.get(key) for key in part.key} != part.key]
    write_json(part.place, {"records": [*others, {**part.key, "seen": dict(seen), "made": dict(made)}]})
    return part.place


def _beside(part: Part) -> list[dict[str, Any]]:
    return [] if part.place is None else _read(part.place)


def check_records(keys: EvaluatorKeys, resolve: Resolve) -> None:
    """ValueError for a damaged file beside either checkpoint."""
    for path in _places(keys, resolve).values():
        if path is not None:
            _read(path)


def _places(keys: EvaluatorKeys, resolve: Resolve) -> dict[str, Path | None]:
    """{detector and colors: where its answers may be recorded}"""
    files = evaluator_inputs(keys, resolve)
    found: dict[str, Path | None] = {}
    for name in ("detector", "colors"):
        ours = [path for key, path in files.items() if key.startswith(f"{name}.options.")]
        path = files.get(f"{name}.options.checkpoint") or next(iter(ours), None)
        found[name] = None if path is None else path.with_name(f"{path.name}.canary.json")
    return found


class _Noted(BaseModel):
    """One entry of a file beside a checkpoint."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)
    kind: str
    options: dict[str, Any]
    weights: dict[str, str]
    tolerance: float = Field(0.0, ge=0)


class _NotedObjects(_Noted):
    part: Literal["detector"]
    seen: dict[str, dict[str, tuple[float, Annotated[list[float], Field(min_length=4, max_length=4)], int]]] = Field(
        min_length=1
    )


class _NotedColors(_Noted):
    part: Literal["colors"]
    seen: dict[str, list[list[float]]] = Field(min_length=1)


_NOTES = TypeAdapter(list[Annotated[_NotedObjects | _NotedColors, Field(discriminator="part")]])


def _read(path: Path) -> list[dict[str, Any]]:
    """The entries of a file; one that compares nothing, or lets everything pass, would be worse than none."""
    if not path.exists():
        return []
    try:
        records = read_json_object(path)["records"]
        _NOTES.validate_json(json.dumps(records))
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path}: not a file of canary=record; remove it and run with canary=record again") from None
    return records
