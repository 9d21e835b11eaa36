"""`genloop submit`: a job for a cluster. RUN/logs/submit-N, its plan folder, holds the frozen config and the script."""

import argparse
import os
import re
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from genloop import environment, job, terminal
from genloop.config import dump_yaml, words_of
from genloop.distributed import World
from genloop.reading import parse_yaml
from genloop.redaction import holds_redacted, redact
from genloop.rundir import write_atomic, write_json
from launch.backends import slurm
from launch.backends.scripts import Submission, render
from launch.catalog import import_job
from launch.cluster import Cluster, HostSettings, JobSetSettings, find_cluster, load_cluster, read_hosts
from launch.record import Launch, read_launch, words_to_resume, write_launch
from launch.watch.status import read_state

if TYPE_CHECKING:
    from genloop.config import JobConfig

_NEXT = {"pbs": "qsub", "jobset": "kubectl apply -f"}
_TEXTS = ("time", "partition")
_KEYS = ("gpus", "procs", "requeue_limit", *_TEXTS)  # options that stand for a key of the cluster file


def execute(options: argparse.Namespace) -> int:
    """Check, freeze, submit -> exit code. Nothing stays behind when the scheduler refuses."""
    if options.cluster is None:
        raise ValueError("--cluster: a name of configs/cluster or a file; `genloop run` starts a job here")
    module = import_job(options.job)
    config = job.parse(module, options.words)
    path = find_cluster(options.cluster)
    asked = {key: value for key in _KEYS if (value := getattr(options, key)) is not None}
    texts = {key: asked.pop(key) for key in _TEXTS if key in asked}
    words = [*(f"{key}={value}" for key, value in asked.items()), *words_of(texts)]
    cluster = load_cluster(path, words)
    nodes = _nodes(module.KIND, cluster, options.nodes, options.array)
    after = [id for text in options.after for id in _to_wait_for(text, cluster)]
    run = config.out.absolute()
    refuse_a_second(run)
    submission = _submission(options.job, module, run, cluster, nodes, after)
    if options.dry_run:
        return _dry_run(module, config, submission)
    existed, plain = run.exists(), _without_secrets(config)
    more = {"plan": submission.plan.name, "cluster": words}
    launch = Launch(options.job, cluster.workers, nodes, cluster.kind, str(path.absolute()), options=more)
    try:
        if not after:  # else the input may not be there yet
            job.prepare(module, config, World())
        jobs = _hand_over(submission, plain, launch)
    except BaseException:
        is_shared = (run / "logs/launch.json").exists() or any((run / "logs").glob("submit-*"))
        if not existed and not is_shared:  # by somebody who has started the same run meanwhile
            shutil.rmtree(run, ignore_errors=True)
        raise
    _say_what_is_next(submission, jobs, config.out)
    return 0


def resubmit(run: Path, launch: Launch, words: Sequence[str]) -> int:
    """Submit a run again as it was submitted last -> exit code."""
    given = {key: str(parse_yaml(text, key)) for key, _, text in (w.partition("=") for w in launch.options["cluster"])}
    name, *rest = words_to_resume(run, launch, words)
    if Path(launch.folder).is_dir():
        os.chdir(launch.folder)
    alone = import_job(name).KIND == "independent"
    nodes = None if launch.backend == "hosts" else launch.nodes
    more: dict[str, Any] = {key: given.get(key) for key in _KEYS}
    more |= {"nodes": None if alone else nodes, "array": nodes if alone else None, "after": [], "dry_run": False}
    return execute(argparse.Namespace(job=name, words=rest, cluster=launch.cluster, **more))


def _nodes(kind: str, cluster: Cluster, nodes: int | None, array: int | None) -> int:
    """On how many a job works."""
    if kind == "independent" and nodes is not None:
        raise ValueError(
            "--nodes: workers of an independent job do not meet; --array K starts K tasks of one node each"
        )
    if kind == "collective" and array is not None:
        raise ValueError("--array: the workers of a collective job meet; --nodes M starts them together")
    found = nodes if array is None else array
    if found is not None and not 1 <= found <= 100_000:
        raise ValueError(f"--{'nodes' if array is None else 'array'}: at least 1, found {found}")
    if isinstance(cluster, HostSettings):
        if found is not None:
            raise ValueError(
                f"--{'nodes' if array is None else 'array'}: {cluster.hostfile} says how many hosts there are"
            )
        return len(read_hosts(cluster.hostfile))
    return found or 1


def _to_wait_for(text: str, cluster: Cluster) -> tuple[str, ...]:
    """The ids of the jobs that --after RUN or --after ID means; none when RUN is done."""
    is_id = re.fullmatch(r"\d+(\[\])?(\.\S+)?", text)
    if cluster.kind not in {"slurm", "pbs"}:
        raise ValueError(f"--after: nothing of kind {cluster.kind} waits for another job; submit when that is done")
    if is_id:
        return (text,)
    run = Path(text)
    launch = read_launch(run)
    if (run / "run.json").exists() and read_state(run).state == "done":
        return ()
    if launch.backend != "slurm" or cluster.kind != "slurm":
        raise ValueError(f"--after: {run} is not done, and no job of this scheduler; give a job's id")
    if not any(task.is_live for task in slurm.tasks_of(launch.jobs, launch.plan(run))):
        raise ValueError(f"--after: {run} is neither done nor in the queue; `genloop resume {run}` first")
    return launch.jobs


def refuse_a_second(run: Path) -> None:
    """ValueError while a run is in the queue: two starts at a time would be two workers of one rank."""
    if live := tasks_in_queue(run):
        raise ValueError(f"{run} is in the queue already ({live[0].line}); `genloop cancel {run}` first")


def tasks_in_queue(run: Path) -> list[slurm.Task]:
    """The tasks of a run that wait or run, as Slurm knows them; none of a run that was started elsewhere."""
    if not (run / "logs" / "launch.json").exists():
        return []
    launch = read_launch(run)
    if launch.backend != "slurm":
        return []
    return [task for task in slurm.tasks_of(launch.jobs, launch.plan(run)) if task.is_live]


def _submission(
    name: str, module: ModuleType, run: Path, cluster: Cluster, nodes: int, after: Sequence[str]
) -> Submission:
    if len(f"{run}{Path.cwd()}".splitlines()) > 1:
        raise ValueError(
            f"out: {str(run)!r} and the current folder stand in a script: no line break may be in their names"
        )
    if isinstance(cluster, JobSetSettings) and not run.is_relative_to(cluster.mount):
        raise ValueError(f"out: {run} is not below `mount`, {cluster.mount}, which all nodes share")
    in_container = isinstance(cluster, JobSetSettings)
    numbers = [int(path.name[7:]) for path in run.glob("logs/submit-*") if path.name[7:].isdecimal()]
    return Submission(
        job=name,
        together=module.KIND == "collective",
        run=run,
        plan=run / "logs" / f"submit-{max(numbers, default=0) + 1}",
        cluster=cluster,
        nodes=nodes,
        folder=Path.cwd(),
        python="python" if in_container else sys.executable,
        variables={"PYTHONSAFEPATH": "1"} if in_container else environment.imports_alike(),
        after=tuple(after),
    )


def _dry_run(module: ModuleType, config: "JobConfig", submission: Submission) -> int:
    check = getattr(module, "check", None)
    if check and not submission.after:
        check(config)
    terminal.out(render(submission))
    return 0


def _without_secrets(config: "JobConfig") -> dict[str, Any]:
    """The config as it is written down; ValueError where a secret in it would be missed."""
    plain = job.plain(config)
    if key := holds_redacted(plain):
        raise ValueError(f"{key}: a secret is not written down for a job that starts later; give it by its environment")
    return plain


def _hand_over(submission: Submission, plain: Mapping[str, Any], launch: Launch) -> tuple[str, ...]:
    """Make the plan folder, give the script to the scheduler, note that in the run folder -> ids of its jobs."""
    submission.plan.mkdir(parents=True)  # one of two at the same moment
    jobs: tuple[str, ...] = ()
    try:
        _freeze(plain, submission)
        jobs = (slurm.submit(submission.script),) if submission.cluster.kind == "slurm" else ()
        write_launch(submission.run, replace(launch, jobs=jobs))
    except BaseException:
        shutil.rmtree(submission.plan, ignore_errors=True)
        if jobs:  # nobody would know of it
            slurm.cancel(jobs)
        raise
    return jobs


def _freeze(plain: Mapping[str, Any], submission: Submission) -> None:
    """Write config, plan and script into the plan folder."""
    write_atomic(submission.plan / "config.yaml", dump_yaml({**plain, "out": str(submission.run)}).encode())
    plan = {
        "job": submission.job,
        "nodes": submission.nodes,
        "cluster": redact(submission.cluster.model_dump(mode="json")),
        "after": list(submission.after),
        "environment": environment.describe(),
    }
    write_json(submission.plan / "plan.json", plan)
    write_atomic(submission.script, render(submission).encode())


def _say_what_is_next(submission: Submission, jobs: Sequence[str], run: Path) -> None:
    kind = submission.cluster.kind
    if kind == "slurm":
        tasks = f", {submission.nodes} tasks" if submission.is_array else ""
        terminal.err(f"job {jobs[0]}{tasks}; `genloop status {run}` shows it, `genloop cancel {run}` stops it")
    elif kind == "hosts":
        terminal.err("the commands, to be started one on each host:")
        terminal.out(submission.script.read_text(encoding="utf-8"))
    else:
        terminal.err("written, not submitted; this does it:")
        terminal.out(f"{_NEXT[kind]} {shlex.quote(str(submission.script))}")
