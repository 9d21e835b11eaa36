"""A pipeline on a cluster: every stage is submitted at once, each behind those whose folders it reads."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from genloop import terminal
from launch.backends import slurm
from launch.catalog import import_job
from launch.commands import submit
from launch.pipelines.folder import is_done
from launch.pipelines.stages import Stage
from launch.record import read_launch


def submit_stages(out: Path, stages: Sequence[Stage], cluster: str, procs: str | None) -> list[str]:
    """Submit what is neither done nor in the queue -> the jobs of all that is not done.

    When one is refused, those that were submitted before it are taken back.

    Raises:
        ValueError, OSError: as of `genloop submit`.
    """
    jobs: list[str] = []
    submitted: list[str] = []
    waiting: set[str] = set()  # stages that are not done
    try:
        for stage in stages:
            if is_done(out, stage):
                terminal.err(f"{stage.name}: done already: {stage.folder}")
                continue
            waiting.add(stage.name)
            if submit.tasks_in_queue(stage.folder):
                terminal.err(f"{stage.name}: in the queue already")
                jobs += read_launch(stage.folder).jobs
                continue
            folders = [str(other.folder) for other in stages if other.name in stage.needs and other.name in waiting]
            terminal.err(f"{stage.name}: {stage.folder}")
            submit.execute(_options(stage, cluster, procs, folders))
            submitted += read_launch(stage.folder).jobs
    except BaseException:
        if submitted:
            slurm.cancel(submitted)
        raise
    return jobs + submitted


def _options(stage: Stage, cluster: str, procs: str | None, after: Sequence[str]) -> argparse.Namespace:
    together = import_job(stage.job).KIND == "collective"
    nodes = {"nodes": stage.nodes if together else None, "array": None if together else stage.nodes}
    more = dict.fromkeys(("gpus", "time", "partition", "requeue_limit"))
    return argparse.Namespace(
        job=stage.job,
        words=list(stage.words),
        cluster=cluster,
        procs=stage.procs or procs,
        after=list(after),
        dry_run=False,
        **nodes,
        **more,
    )
