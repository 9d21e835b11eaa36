"""What a pipeline file holds, and its stages one by one: rounds and rows written out, references not yet resolved.

    stages:
      loop:
        repeat: 2
        stages: {train: {...}, evaluate: {...}}
      table:
        each: {baseline: {}, orm: {generate: {search: {strategy: best_of_n, n: 4}}}}
        stages: {generate: {...}, verdicts: {...}}

A file that begins with `like: OTHER` differs from OTHER in what it says.

`repeat` gives train.1, evaluate.1, train.2, evaluate.2; `each` gives generate.baseline, verdicts.baseline,
generate.orm, verdicts.orm, where a row says by stage what it sets on top of that stage's `set`.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from genloop.bounds import Threads
from genloop.config import (
    ConfigError,
    Settings,
    apply_words,
    find_preset,
    parse_settings,
    preset_roots,
    read_yaml,
    refusal,
)
from genloop.registry import did_you_mean
from launch.backends.processors import MAX_PROCS

_NAME = re.compile(r"[A-Za-z][\w-]*")


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
    """Stages that are gone through several times: `repeat` times, or once for each row of `each`."""

    repeat: int | None = Field(None, ge=1, le=1000)
    each: dict[str, dict[str, dict[str, Any]]] | None = Field(
        None, min_length=1, description="by row and stage: what the row sets"
    )
    stages: dict[str, StageSettings] = Field(min_length=1)

    @model_validator(mode="after")
    def _rows(self) -> "RoundSettings":
        if (self.repeat is None) == (self.each is None):
            raise refusal("repeat, each: needs one of the two")
        for row, changes in (self.each or {}).items():
            if not _NAME.fullmatch(row):
                raise refusal(f"each: {row!r} is no name: letters, digits, _ and -")
            for name in changes:
                if name not in self.stages:
                    raise refusal(f"each.{row}.{name}: no such stage{did_you_mean(name, self.stages)}")
        return self

    @property
    def names(self) -> list[str]:
        """What is appended to the names of the stages, round by round."""
        return list(self.each) if self.each is not None else [str(n + 1) for n in range(self.repeat or 0)]


class PipelineSettings(Settings):
    """A pipeline file."""

    out: Path
    vars: dict[str, Any] = Field({}, description="values that stages refer to")
    stages: dict[str, Any] = Field(min_length=1)


@dataclass(frozen=True)
class Draft:
    """A stage before its references are resolved.

    `names` maps what its round calls a stage to that stage, `all` the same name to that stage in every round.
    """

    name: str
    settings: StageSettings
    names: Mapping[str, str]
    all: Mapping[str, Sequence[str]]
    previous: Mapping[str, str]
    round: int


def load_pipeline(name: str, words: Sequence[str] = ()) -> PipelineSettings:
    """A file, or a name in configs/pipelines, with `key=value` words; ConfigError in one line.

    A file may say `like: OTHER`: it is OTHER with what it says itself in place of the same keys, at any depth.
    """
    data = pipeline_data(name)
    apply_words(data, words)
    return parse_settings(PipelineSettings, data)


def pipeline_data(name: str) -> dict[str, Any]:
    """The plain values of a pipeline file, those that it is `like` included."""
    data = read_yaml(find_preset("pipelines", name, preset_roots()))
    if (other := data.pop("like", None)) is None:
        return data
    base = read_yaml(find_preset("pipelines", str(other), preset_roots()))
    if "like" in base:
        raise ConfigError(f"like: {other} is itself like another pipeline; name that one")
    return _merged(base, data)


def _merged(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    both = {key: _merged(base[key], own[key]) for key in own if _are_groups(base.get(key), own[key])}
    return {**base, **own, **both}


def _are_groups(*values: Any) -> bool:
    return all(isinstance(value, dict) for value in values)


def drafts_of(pipeline: PipelineSettings) -> Iterator[Draft]:
    """Every stage of every round, in the order of the file; ConfigError names the key."""
    plan = dict(_parse(pipeline))
    outer: dict[str, str] = {}  # name of a stage -> the stage that stages after it mean by it
    every: dict[str, list[str]] = {}
    for name, settings in plan.items():
        rounds = settings.names if isinstance(settings, RoundSettings) else []
        inner = _of_round(settings, rounds[-1]) if isinstance(settings, RoundSettings) else {name: name}
        if both := outer.keys() & inner.keys():
            raise ConfigError(f"stages: two are named {min(both)!r}")
        outer |= inner
        every |= {stage: [f"{stage}.{suffix}" for suffix in rounds] or [stage] for stage in inner}
    outer |= {name: name for names in every.values() for name in names}
    for name, settings in plan.items():
        if isinstance(settings, StageSettings):
            yield Draft(name, settings, outer, every, {}, 0)
            continue
        previous: dict[str, str] = {}
        for number, suffix in enumerate(settings.names, start=1):
            names = _of_round(settings, suffix)
            for inner_name, stage in settings.stages.items():
                changes = settings.each[suffix].get(inner_name, {}) if settings.each else {}
                own = stage.model_copy(update={"set": stage.set | changes})
                yield Draft(names[inner_name], own, outer | names, every, previous, 0 if settings.each else number)
            previous = {} if settings.each else names


def _parse(pipeline: PipelineSettings) -> Iterator[tuple[str, StageSettings | RoundSettings]]:
    for name, data in pipeline.stages.items():
        if not _NAME.fullmatch(name):
            raise ConfigError(f"stages: {name!r} is no name: letters, digits, _ and -")
        try:
            if isinstance(data, dict) and ("repeat" in data or "each" in data):
                yield name, parse_settings(RoundSettings, data)
            else:
                yield name, parse_settings(StageSettings, data)
        except ConfigError as error:
            raise ConfigError(f"stages.{name}.{error}") from None


def _of_round(settings: RoundSettings, suffix: str) -> dict[str, str]:
    return {name: f"{name}.{suffix}" for name in settings.stages}
