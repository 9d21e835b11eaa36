"""A pipeline file -> stages with their configs, in an order in which they can run.

    out: runs/demo
    vars: {images: 4}
    stages:
      generate: {job: generate, preset: tiny, set: {images_per_prompt: "${vars.images}"}}
      loop:
        repeat: 2
        stages:
          evaluate: {job: evaluate, preset: tiny, set: {images: "${stages.generate}"}}

`${stages.NAME}` is the run folder of a stage (of this round, or after the rounds of the last; NAME.2: of the second),
`${previous.NAME|OTHER}` that of the round before (OTHER in the first),
`${round}` the number of the round, `${vars.KEY}` a value of `vars`. A stage's address is a hash of its job, its config
and the content of its input, where another stage's run folder counts as that stage's address: when a key changes, only
what depends on it gets another address, another folder, and is run again.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from pydantic import Field, field_validator

from genloop import job
from genloop.bounds import Threads
from genloop.config import (
    INPUT,
    LAUNCH,
    ConfigError,
    JobConfig,
    Settings,
    apply_words,
    computing_keys,
    find_preset,
    marked,
    parse_settings,
    preset_roots,
    read_yaml,
    refusal,
)
from genloop.hashing import sha256_tree
from genloop.registry import did_you_mean
from launch.backends.processors import MAX_PROCS
from launch.catalog import import_job

_REFERENCE = re.compile(r"\$\{([^}]*)\}")
_NAME = re.compile(r"[A-Za-z][\w-]*")
_PLAIN = re.compile(r"(?!(true|false|null)$)[A-Za-z/.][\w/.:@-]*", re.I)  # text that YAML reads as that text
_ADDRESS_DIGITS = 12


class StageSettings(Settings):
    """One job of a pipeline: `set` holds what differs from its preset, as the job's own keys, nested or dotted."""

    job: str
    preset: str | None = None
    set: dict[str, Any] = Field({}, description="what differs from the preset")
    procs: Threads | Literal["auto"] | None = Field(None, description="workers; by default those of the command line")
    nodes: int | None = Field(None, ge=1, le=100_000, description="on a cluster: tasks of an independent job, or nodes")

    @field_validator("procs")
    @classmethod
    def _possible(cls, procs: int | str | None) -> int | str | None:
        if isinstance(procs, int) and not 1 <= procs <= MAX_PROCS:
            raise refusal(f": 1 to {MAX_PROCS} or auto, found {procs}")
        return procs


class RoundSettings(Settings):
    """Stages that are gone through `repeat` times."""

    repeat: int = Field(ge=1, le=1000)
    stages: dict[str, StageSettings] = Field(min_length=1)


class PipelineSettings(Settings):
    """A pipeline file."""

    out: Path
    vars: dict[str, Any] = Field({}, description="values that stages refer to")
    stages: dict[str, Any] = Field(min_length=1)


@dataclass(frozen=True)
class Stage:
    """A stage as it is run: `words` follow `genloop run JOB`, `needs` are names of stages whose folders it reads."""

    name: str  # with the number of its round, counted from 1: evaluate.2
    job: str
    words: tuple[str, ...]
    address: str
    folder: Path
    needs: tuple[str, ...]
    procs: str | None
    nodes: int | None


@dataclass(frozen=True)
class Draft:
    """A stage before its references are resolved; `names` maps what its round calls a stage to that stage."""

    name: str
    settings: StageSettings
    names: Mapping[str, str]
    previous: Mapping[str, str]
    round: int


def load_pipeline(name: str, words: Sequence[str] = ()) -> PipelineSettings:
    """A file, or a name in configs/pipelines, with `key=value` words; ConfigError in one line."""
    data = read_yaml(find_preset("pipelines", name, preset_roots()))
    apply_words(data, words)
    return parse_settings(PipelineSettings, data)


def resolve_stages(pipeline: PipelineSettings, folders: Mapping[str, str]) -> list[Stage]:
    """Every stage with its address and its folder below `out`, those it needs before it.

    `folders` maps addresses that have been run to their folders; a new address gets the stage's plain name, when no
    other address has that yet. Nothing is written and nothing is run.

    Raises:
        ConfigError: an unknown job, stage, preset or key, a circle, a missing input: one line that names the stage.
    """
    drafts = {draft.name: draft for draft in _drafts(pipeline)}
    needs = {name: _needs(draft, pipeline) for name, draft in drafts.items()}
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        raise ConfigError(f"stages: {' needs '.join(error.args[1][::-1])}: a circle") from None
    taken = set(folders.values())
    done: dict[str, Stage] = {}
    while len(done) < len(drafts):
        name = next(name for name in drafts if name not in done and needs[name] <= done.keys())
        stage = _resolved(drafts[name], pipeline, done, folders, taken, sorted(needs[name]))
        taken.add(stage.folder.name)
        done[name] = stage
    return list(done.values())


def _drafts(pipeline: PipelineSettings) -> Iterator[Draft]:
    outer: dict[str, str] = {}  # name of a stage -> the stage that stages after it mean by it
    plan: list[tuple[str, StageSettings | RoundSettings]] = []
    for name, data in pipeline.stages.items():
        if not _NAME.fullmatch(name):
            raise ConfigError(f"stages: {name!r} is no name: letters, digits, _ and -")
        try:
            if isinstance(data, dict) and "repeat" in data:
                plan.append((name, parse_settings(RoundSettings, data)))
            else:
                plan.append((name, parse_settings(StageSettings, data)))
        except ConfigError as error:
            raise ConfigError(f"stages.{name}.{error}") from None
    for name, settings in plan:
        inner = {name: name} if isinstance(settings, StageSettings) else _of_round(settings, settings.repeat)
        if both := outer.keys() & inner.keys():
            raise ConfigError(f"stages: two are named {min(both)!r}")
        outer |= inner
    for settings in (settings for _, settings in plan if isinstance(settings, RoundSettings)):
        outer |= {name: name for number in range(settings.repeat) for name in _of_round(settings, number + 1).values()}
    for name, settings in plan:
        if isinstance(settings, StageSettings):
            yield Draft(name, settings, outer, {}, 0)
            continue
        for number in range(1, settings.repeat + 1):
            names = outer | _of_round(settings, number)
            previous = _of_round(settings, number - 1) if number > 1 else {}
            for inner_name, stage in settings.stages.items():
                yield Draft(f"{inner_name}.{number}", stage, names, previous, number)


def _of_round(settings: RoundSettings, number: int) -> dict[str, str]:
    return {name: f"{name}.{number}" for name in settings.stages}


def _needs(draft: Draft, pipeline: PipelineSettings) -> set[str]:
    found: set[str] = set()

    def note(name: str) -> str:
        found.add(name)
        return ""

    _substitute(draft.settings.set, draft, pipeline, note)
    return found


def _resolved(
    draft: Draft,
    pipeline: PipelineSettings,
    done: Mapping[str, Stage],
    folders: Mapping[str, str],
    taken: set[str],
    needs: Sequence[str],
) -> Stage:
    module = import_job(draft.settings.job)
    head = [draft.settings.preset] if draft.settings.preset else []

    def words(place: Any) -> list[str]:
        return [*head, *_words(_substitute(draft.settings.set, draft, pipeline, place))]

    try:
        config = job.parse(module, [*words(lambda name: f"@{done[name].address}"), "out=x"])
        address = _address(module, config)
    except ConfigError as error:
        raise ConfigError(f"stages.{draft.name}: {error}") from None
    folder = folders.get(address) or (draft.name if draft.name not in taken else f"{draft.name}-{address}")
    place = pipeline.out / folder
    return Stage(
        draft.name,
        draft.settings.job,
        (*words(lambda name: str(done[name].folder)), f"out={place}"),
        address,
        place,
        tuple(needs),
        None if draft.settings.procs is None else str(draft.settings.procs),
        draft.settings.nodes,
    )


def _address(module: ModuleType, config: JobConfig) -> str:
    """A hash of what a stage computes; a path that begins with @ lies in the folder of the stage with that address."""
    inputs = {key: str(path) for key, path in marked(config, INPUT) if path is not None}
    for key, path in inputs.items():
        if not path.startswith("@"):
            if not Path(path).exists():
                raise ConfigError(f"{key}: no such file or folder: {path}")
            inputs[key] = sha256_tree(Path(path))
    launch = marked(config, LAUNCH)
    places = {key: str(value) for key, value in launch if key != "out" and isinstance(value, str | Path)}
    body = {"job": module.__name__, "keys": computing_keys(config), "inputs": inputs, "places": places}
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:_ADDRESS_DIGITS]


def _substitute(value: Any, draft: Draft, pipeline: PipelineSettings, place: Any) -> Any:
    """The value with every reference replaced; `place(name)` stands for the folder of a stage."""
    if isinstance(value, dict):
        return {key: _substitute(part, draft, pipeline, place) for key, part in value.items()}
    if isinstance(value, list):
        return [_substitute(part, draft, pipeline, place) for part in value]
    if not isinstance(value, str):
        return value
    whole = _REFERENCE.fullmatch(value)
    if whole:
        return _meaning(whole[1], draft, pipeline, place)
    return _REFERENCE.sub(lambda match: str(_meaning(match[1], draft, pipeline, place)), value)


def _meaning(reference: str, draft: Draft, pipeline: PipelineSettings, place: Any) -> Any:
    kind, _, name = reference.partition(".")
    if kind == "stages" and name in draft.names:
        return place(draft.names[name])
    if kind == "vars" and name in pipeline.vars:
        return pipeline.vars[name]
    if reference == "round" and draft.round:
        return draft.round
    if kind == "previous" and draft.round:
        name, bar, other = name.partition("|")
        if name in draft.previous:
            return place(draft.previous[name])
        if draft.round == 1 and bar and name in draft.names:
            return _meaning(other, draft, pipeline, place) if other.startswith("stages.") else other
    known = {"stages": list(draft.names), "vars": list(pipeline.vars), "previous": list(draft.names)}.get(kind, [])
    hint = did_you_mean(name, known)
    raise ConfigError(f"stages.{draft.name}: ${{{reference}}} stands for nothing{hint}")


def _words(data: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Nested keys and values as key=value; JSON is YAML."""
    for key, value in data.items():
        if isinstance(value, dict) and value:
            yield from _words(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}={value if isinstance(value, str) and _PLAIN.fullmatch(value) else json.dumps(value)}"
