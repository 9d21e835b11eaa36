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
`${stages.NAME.*}` the list of its folders in all rounds, `${previous.NAME|OTHER}` the folder of the round before (OTHER
in the first); `/` and a path may follow NAME in all of them. `${round}` is the number of the round, `${vars.KEY}` a
value of `vars`, which may hold references too.

A stage's address is a hash of its job, its config and the content of its input, where another stage's run folder counts
as that stage's address: when a key changes, only what depends on it gets another address, another folder, and is run
again. Stages with the same address share a folder.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from types import ModuleType
from typing import Any

from genloop import job
from genloop.config import INPUT, LAUNCH, ConfigError, JobConfig, computing_keys, marked, words_of
from genloop.hashing import sha256_tree
from genloop.registry import did_you_mean
from launch.catalog import import_job
from launch.pipelines.drafts import Draft, PipelineSettings, drafts_of

_REFERENCE = re.compile(r"\$\{([^}]*)\}")
_ADDRESS_DIGITS = 12


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


def resolve_stages(pipeline: PipelineSettings, folders: Mapping[str, str]) -> list[Stage]:
    """Every stage with its address and its folder below `out`, those it needs before it.

    `folders` maps addresses that have been run to their folders; a new address gets the stage's plain name, when no
    other address has that yet. Nothing is written and nothing is run.

    Raises:
        ConfigError: an unknown job, stage, preset or key, a circle, a missing input: one line that names the stage.
    """
    drafts = {draft.name: draft for draft in drafts_of(pipeline)}
    needs = {name: _needs(draft, pipeline) for name, draft in drafts.items()}
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        raise ConfigError(f"stages: {' needs '.join(error.args[1][::-1])}: a circle") from None
    places = dict(folders)  # stages that compute the same share a folder
    done: dict[str, Stage] = {}
    while len(done) < len(drafts):
        name = next(name for name in drafts if name not in done and needs[name] <= done.keys())
        stage = _resolved(drafts[name], pipeline, done, places, sorted(needs[name]))
        places[stage.address] = stage.folder.name
        done[name] = stage
    return list(done.values())


def chosen_stages(stages: Sequence[Stage], only: Sequence[str]) -> list[Stage]:
    """Those that `only` names, by stage or by row (`orm`: every stage NAME.orm), and all that they need; none: all.

    Raises:
        ValueError: one of the names is neither.
    """
    if not only:
        return list(stages)
    rows = {stage.name.partition(".")[2] for stage in stages} - {""}
    names = {stage.name for stage in stages} | rows
    for name in only:
        if name not in names:
            raise ValueError(
                f"--only: no stage or row {name!r}{did_you_mean(name, names)} ({', '.join(sorted(names))})"
            )
    wanted = {s.name for s in stages if s.name in only or s.name.partition(".")[2] in only}
    for stage in reversed(stages):
        wanted |= set(stage.needs) if stage.name in wanted else set()
    return [stage for stage in stages if stage.name in wanted]


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
    needs: Sequence[str],
) -> Stage:
    module = import_job(draft.settings.job)
    head = [draft.settings.preset] if draft.settings.preset else []

    def words(place: Any) -> list[str]:
        return [*head, *words_of(_substitute(draft.settings.set, draft, pipeline, place))]

    try:
        config = job.parse(module, [*words(lambda name: f"@{done[name].address}"), "out=x"])
        address = _address(module, config)
    except ConfigError as error:
        raise ConfigError(f"stages.{draft.name}: {error}") from None
    is_free = draft.name not in folders.values()
    folder = folders.get(address) or (draft.name if is_free else f"{draft.name}-{address}")
    place = pipeline.out / folder
    return Stage(
        draft.name,
        draft.settings.job,
        (*words(lambda name: str(done[name].folder)), *words_of({"out": str(place)})),
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
    places = {key: str(value) for key, value in marked(config, LAUNCH) if key != "out" and _is_place(value)}
    body = {"job": module.__name__, "keys": computing_keys(config), "inputs": inputs, "places": places}
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:_ADDRESS_DIGITS]


def _is_place(value: Any) -> bool:
    """Whether a launch setting may be a path, or several."""
    return isinstance(value, str | Path) or (isinstance(value, tuple) and any(isinstance(one, Path) for one in value))


def _substitute(value: Any, draft: Draft, pipeline: PipelineSettings, place: Callable[[str], str]) -> Any:
    """The value with every reference replaced; `place(name)` stands for the folder of a stage."""
    if isinstance(value, dict):
        return {key: _substitute(part, draft, pipeline, place) for key, part in value.items()}
    if isinstance(value, list):
        return [inner for part in value for inner in _spliced(part, draft, pipeline, place)]
    if not isinstance(value, str):
        return value
    whole = _REFERENCE.fullmatch(value)
    if whole:
        return _meaning(whole[1], draft, pipeline, place)
    return _REFERENCE.sub(lambda match: str(_meaning(match[1], draft, pipeline, place)), value)


def _spliced(part: Any, draft: Draft, pipeline: PipelineSettings, place: Callable[[str], str]) -> list[Any]:
    """A part of a list as the parts that it stands for: `${stages.NAME.*}` is several."""
    found = _substitute(part, draft, pipeline, place)
    return found if isinstance(found, list) and isinstance(part, str) else [found]


def _meaning(reference: str, draft: Draft, pipeline: PipelineSettings, place: Callable[[str], str]) -> Any:
    kind, _, name = reference.partition(".")
    if kind == "vars" and name in pipeline.vars:
        others = {key: value for key, value in pipeline.vars.items() if key != name}  # so that no circle goes on
        return _substitute(pipeline.vars[name], draft, pipeline.model_copy(update={"vars": others}), place)
    if reference == "round" and draft.round:
        return draft.round
    name, bar, other = name.partition("|")
    name, slash, below = name.partition("/")
    if kind == "stages" and name in draft.names:
        return place(draft.names[name]) + slash + below
    if kind == "stages" and name.removesuffix(".*") in draft.all:
        return [place(one) + slash + below for one in draft.all[name.removesuffix(".*")]]
    if kind == "previous" and draft.round:
        if name in draft.previous:
            return place(draft.previous[name]) + slash + below
        if draft.round == 1 and bar and name in draft.names:
            is_reference = other.startswith(("stages.", "vars."))
            return _meaning(other, draft, pipeline, place) if is_reference else other
    known = {"stages": list(draft.names), "vars": list(pipeline.vars), "previous": list(draft.names)}.get(kind, [])
    hint = did_you_mean(name, known)
    raise ConfigError(f"stages.{draft.name}: ${{{reference}}} stands for nothing{hint}")
