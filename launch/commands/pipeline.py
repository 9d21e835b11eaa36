"""`genloop pipeline`: run the stages of a file in order, each in a process of its own; what is done stays done."""

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from genloop import job, terminal
from genloop.distributed import STOPPING, end_with_parent
from genloop.environment import imports_alike
from genloop.redaction import redact_word
from launch.backends.local import FAILED, STOPPED, StopRequests, stop_requests
from launch.backends.processors import number_of_procs
from launch.catalog import import_job
from launch.cluster import find_cluster, load_cluster
from launch.pipelines.chain import submit_stages
from launch.pipelines.drafts import PipelineSettings, load_pipeline
from launch.pipelines.folder import is_done, is_pipeline, mark_done, read_folders, stage_states, write_plan
from launch.pipelines.stages import Stage, chosen_stages, resolve_stages
from launch.record import Launch, write_launch
from launch.watch.status import duration

_POLL = 0.05


def execute(options: argparse.Namespace) -> int:
    """Plan all stages, refuse what is wrong, run what is not done -> exit code."""
    if options.cluster is None:
        number_of_procs(options.procs)
    pipeline = load_pipeline(options.name, options.words)
    planned = resolve_stages(pipeline, read_folders(pipeline.out))
    stages = chosen_stages(planned, options.only)
    if options.dry_run:
        for stage in stages:
            state = "done" if is_done(pipeline.out, stage) else "to run"
            terminal.out(f"# {stage.name} ({state}): {stage.folder}")
            terminal.out(shlex.join(["genloop", *map(redact_word, _words(stage, options.procs))]))
        return 0
    if options.cluster is not None:
        return _submit(pipeline, options, planned, stages)
    for stage in stages:
        job.check_devices(job.parse(import_job(stage.job), stage.words))
    _write(pipeline, options, planned)
    began = time.monotonic()
    with stop_requests() as requests:
        for number, stage in enumerate(stages, start=1):
            title = f"[{number}/{len(stages)}] {stage.name}"
            if is_done(pipeline.out, stage):
                terminal.err(f"{title}: done already: {stage.folder}")
                continue
            terminal.err(f"{title}: {stage.folder}")
            started = time.monotonic()
            code = _run(stage, options.procs, requests)
            if code not in {0, STOPPED}:
                terminal.err(f"genloop: stage {stage.name} failed; the same command goes on from it")
                return code
            if code == STOPPED or requests.count:
                terminal.err("pipeline stopped with work left; the same command goes on")
                return STOPPED
            mark_done(pipeline.out, stage, time.monotonic() - started)
    terminal.err(f"pipeline done in {duration(time.monotonic() - began)}: {pipeline.out}")
    return 0


def _write(pipeline: PipelineSettings, options: argparse.Namespace, stages: Sequence[Stage]) -> None:
    write_plan(pipeline.out, Path(options.name).stem, stages, pipeline.model_dump(mode="json"))
    write_launch(pipeline.out, Launch("pipeline", 1, options=_again(options)))


def _again(options: argparse.Namespace) -> dict[str, Any]:
    """What `genloop resume` starts again."""
    return {name: getattr(options, name) for name in ("name", "words", "procs", "only")}


def _submit(
    pipeline: PipelineSettings, options: argparse.Namespace, planned: Sequence[Stage], stages: Sequence[Stage]
) -> int:
    """The stages to the scheduler, as a chain -> exit code."""
    if (kind := load_cluster(find_cluster(options.cluster)).kind) != "slurm":
        raise ValueError(
            f"--cluster: {options.cluster} is of kind {kind}, where no stage can wait for another; use slurm"
        )
    write_plan(pipeline.out, Path(options.name).stem, planned, pipeline.model_dump(mode="json"))
    jobs = submit_stages(pipeline.out, stages, options.cluster, None if options.procs == "1" else options.procs)
    again = _again(options)
    launch = Launch("pipeline", 1, backend="slurm", cluster=options.cluster, jobs=tuple(jobs), options=again)
    write_launch(pipeline.out, launch)
    terminal.err(f"{len(jobs)} jobs; `genloop status {pipeline.out}` shows the stages, `genloop cancel` stops them")
    return 0


def _words(stage: Stage, procs: str) -> list[str]:
    return ["run", stage.job, *stage.words, "--procs", stage.procs or procs]


def _run(stage: Stage, procs: str, requests: StopRequests) -> int:
    """One stage, to its end; requests to stop are passed on."""
    command = [sys.executable, "-m", "launch", *_words(stage, procs)]
    variables = {**os.environ, **imports_alike()}
    child = subprocess.Popen(command, env=variables, process_group=0, preexec_fn=end_with_parent)
    passed = 0
    try:
        while child.poll() is None:
            if (count := requests.count) > passed:  # once: another may come meanwhile
                if not passed:
                    terminal.err(STOPPING)
                child.send_signal(signal.SIGINT if passed else signal.SIGTERM)  # a second Ctrl-C does not wait
                passed = count
            time.sleep(_POLL)
    finally:
        if child.poll() is None:
            child.send_signal(signal.SIGTERM)
            child.wait()
    if passed and child.returncode in {-signal.SIGTERM, -signal.SIGINT}:
        return STOPPED  # asked before it listened
    return child.returncode if child.returncode >= 0 else FAILED


def status(folder: Path, *, as_json: bool) -> str:
    """The stages of a pipeline's folder as text, or as JSON."""
    states = stage_states(folder)
    if as_json:
        rows = [{"stage": s.name, "job": s.job, "run": str(s.run), "state": s.state} for s in states]
        return json.dumps({"pipeline": str(folder), "stages": rows}, indent=1)
    done = sum(state.state == "done" for state in states)
    cells = [(s.name, f"{s.state:<8}", f"{s.run}  ({s.line})" if s.line else str(s.run)) for s in states]
    return "\n".join([f"pipeline {folder}: {done}/{len(states)} stages done", *terminal.aligned(cells, 2)])


def current_stage(folder: Path) -> Path:
    """The run folder that logs are read from: of the first stage that is not done, else of the last."""
    states = [state for state in stage_states(folder) if state.state != "waiting"]
    if not states:
        raise ValueError(f"{folder}: no stage has been started")
    return next((state.run for state in states if state.state != "done"), states[-1].run)


def runs_to_report(folders: Sequence[Path]) -> list[Path]:
    """The same folders, with a pipeline's replaced by its finished runs of evaluate, else by its last."""
    found: list[Path] = []
    for folder in folders:
        if not is_pipeline(folder):
            found.append(folder)
            continue
        done = [stage for stage in stage_states(folder) if stage.state == "done"]
        if not done:
            raise ValueError(f"{folder}: no stage is done yet")
        found += [stage.run for stage in done if stage.job == "evaluate"] or [done[-1].run]
    return found
