"""`genloop plan`: what a job or a pipeline will take, before anything is spent."""

import argparse
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from genloop import terminal
from genloop.config import find_preset, preset_roots
from genloop.job import one_line
from genloop.planning import PLAN
from genloop.registry import did_you_mean
from genloop.rundir import write_json
from launch.backends.processors import number_of_procs
from launch.catalog import import_job, job_files
from launch.pipelines.drafts import load_pipeline
from launch.pipelines.folder import is_pipeline, read_folders, stage_states
from launch.pipelines.stages import Stage, resolve_stages
from launch.planning.plan import JobPlan, Request, plan_job
from launch.watch.status import duration

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def execute(options: argparse.Namespace) -> int:
    """Print the plan -> exit code."""
    if options.vram is not None and not 0 < options.vram < math.inf:
        raise ValueError(f"--vram: the memory of a GPU in GiB, found {options.vram:g}")
    if options.calibrate is not None and not 1 <= options.calibrate <= 1000:
        raise ValueError(f"--calibrate: 1 to 1000 units or steps, found {options.calibrate}")
    if "." in options.name or options.name in job_files():
        module = import_job(options.name)
        plans = {options.name: plan_job(_request(options, module, options.words, options.procs, options.like))}
    else:
        plans = _pipeline(options)
    for plan in plans.values() if options.keep else ():
        keep(plan)
    if options.json:
        terminal.out_json({"stages": {name: to_json(plan) for name, plan in plans.items()}, **_sum(plans.values())})
    else:
        terminal.out("\n".join(_lines(plans)))
    return 0


def keep(plan: JobPlan) -> None:
    """RUN/logs/plan.json."""
    logs = Path(plan.out) / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    write_json(logs / PLAN, to_json(plan))


def to_json(plan: JobPlan) -> dict[str, Any]:
    """The plan as plain values; bounds that are not known are null."""
    found = asdict(plan)
    if plan.seconds is not None:
        found["seconds"] = {key: _known(value) for key, value in asdict(plan.seconds).items()}
    if plan.footprint is not None:
        found["footprint"]["peak"] = plan.footprint.peak
    return found


def _known(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def _request(options: argparse.Namespace, module: Any, words: Sequence[str], procs: str, like: Path | None) -> Request:
    return Request(module, tuple(words), number_of_procs(procs), options.vram, like, options.calibrate)


def _pipeline(options: argparse.Namespace) -> dict[str, JobPlan]:
    """{stage: plan} in order; of a stage whose input is not there yet, what can be said."""
    try:
        find_preset("pipelines", options.name, preset_roots())
    except ValueError:
        known = [*job_files(), *(file.stem for root in preset_roots() for file in (root / "pipelines").glob("*.yaml"))]
        raise ValueError(f"unknown job or pipeline {options.name!r}{did_you_mean(options.name, known)}") from None
    pipeline = load_pipeline(options.name, options.words)
    if options.like is not None and not is_pipeline(options.like):
        raise ValueError(f"--like: {options.like} is not the folder of a pipeline")
    likes = {state.name: state.run for state in stage_states(options.like)} if options.like else {}
    plans: dict[str, JobPlan] = {}
    stages = resolve_stages(pipeline, read_folders(pipeline.out))
    folders = {stage.name: stage.folder for stage in stages}
    for stage in stages:
        missing = [name for name in stage.needs if not folders[name].is_dir()]
        procs = stage.procs or options.procs
        try:
            request = _request(options, import_job(stage.job), stage.words, procs, likes.get(stage.name))
            plans[stage.name] = plan_job(request)
        except (ValueError, OSError) as error:
            if not missing:
                raise ValueError(f"stages.{stage.name}: {one_line(error)}") from error
            plans[stage.name] = _unknown(stage, number_of_procs(procs), missing)
    return plans


def _unknown(stage: Stage, procs: int, missing: Sequence[str]) -> JobPlan:
    note = f"its input is made by {', '.join(missing)}: plan again when that is done"
    return JobPlan(stage.job, str(stage.folder), procs, "cpu", notes=(note,))


def _sum(plans: Any) -> dict[str, Any]:
    """The time of all stages, one after another, and what it costs."""
    timed = [plan for plan in plans if plan.seconds is not None]
    sums = {key: sum(getattr(p.seconds, key) for p in timed) for key in ("seconds", "low", "high")}
    hours = sum(plan.seconds.seconds * plan.workers / 3600 for plan in timed if plan.device == "cuda")
    return {"total": {key: _known(value) for key, value in sums.items()}, "gpu_hours": hours, "timed": len(timed)}


def _lines(plans: dict[str, JobPlan]) -> Iterator[str]:
    for name, plan in plans.items():
        yield f"{name}: {plan.out}"
        yield from terminal.aligned(_rows(plan), 2)
        yield from (line for note in plan.notes for line in terminal.wrapped(f"  {note}", terminal.columns()))
    total = _sum(plans.values())
    if len(plans) > 1 and total["timed"]:
        hours = f", {total['gpu_hours']:.3g} GPU-hours" if total["gpu_hours"] else ""
        yield f"all: {duration(total['total']['seconds'])} for {total['timed']} of {len(plans)} stages{hours}"


def _rows(plan: JobPlan) -> Iterator[tuple[str, str]]:
    if plan.units is not None:
        yield "work", f"{plan.units} units, {plan.items} items"
    if plan.steps is not None:
        yield "work", f"{plan.steps} steps"
    yield "workers", f"{plan.workers}, each on a {'GPU' if plan.device == 'cuda' else 'CPU'}"
    if plan.footprint is not None:
        yield "memory of each", size(plan.footprint.peak) + (" (from registry shapes)" if plan.from_shapes else "")
        yield from ((f"  {name}", size(count)) for name, count in plan.footprint.parts.items() if count)
        yield "  activations", size(plan.footprint.working)
        yield from ((f"disk: {name}", size(count)) for name, count in plan.footprint.disk.items())
    if plan.fits is not None:
        best = f"no; it would with {plan.remedy}" if plan.remedy else "no, and neither would any setting that was tried"
        yield "fits", "yes" if plan.fits else best
    if plan.seconds is not None:
        found = plan.seconds
        bounds = "" if math.isnan(found.low) else f" ({_time(found.low)} to {_time(found.high)})"
        yield "time", f"{_time(found.seconds)}{bounds}, by {found.basis}"
        if plan.device == "cuda":
            yield "GPU-hours", f"{found.seconds * plan.workers / 3600:.3g}"


def _time(seconds: float) -> str:
    return duration(seconds) if seconds >= 10 else f"{seconds:.2g}s"


def size(count: float) -> str:
    """Bytes for a person."""
    power = min(len(_UNITS) - 1, int(math.log(max(1.0, abs(count)), 1024)))
    return f"{count / 1024**power:.3g} {_UNITS[power]}"
