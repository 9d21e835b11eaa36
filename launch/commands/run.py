"""`genloop run`: a job here, in this process or in workers, on one machine or as one of several. `genloop resume`."""

import argparse
import os
import shlex
import socket
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from genloop import environment, job, terminal
from genloop.config import dump_yaml
from genloop.distributed import World
from genloop.lease import read_object
from genloop.nodes import together
from genloop.redaction import redact_word
from launch.backends.local import STOPPED, Workers, run_workers
from launch.backends.processors import number_of_procs
from launch.backends.slurm import SlurmError
from launch.catalog import import_job, manual
from launch.commands.submit import refuse_a_second, resubmit
from launch.record import PLAN, Launch, read_launch, words_to_resume, write_launch
from launch.watch.progress import shown
from launch.watch.status import duration

if TYPE_CHECKING:
    from genloop.config import JobConfig
    from genloop.job import Prepared

PORT = 29400


def execute(options: argparse.Namespace) -> int:
    """Parse, check, start -> exit code."""
    if options.help and options.job is None:
        options.parser.print_help()
        return 0
    if options.job is None:
        raise ValueError("which job? `genloop jobs` lists them")
    module = import_job(options.job)
    if options.help:
        terminal.out(manual(module))
        return 0
    procs = number_of_procs(options.procs)
    _check_nodes(options, module.KIND)
    config = job.parse(module, options.words)
    if options.print_config:
        terminal.out(dump_yaml(job.plain(config)))
        return 0
    job.check_devices(config)
    if options.dry_run:
        return _dry_run(module, config, options, procs)
    if PLAN not in os.environ:
        with suppress(SlurmError):  # a machine that cannot ask
            refuse_a_second(config.out)
    world = World.from_environment() if options.nodes == 1 else _first_of(options, procs)
    late = module.KIND == "independent"
    nodes = 1 if late and PLAN in os.environ else options.nodes  # tasks of an array may start hours apart
    with together(config.out, options.node_rank, nodes, seconds=options.meet_timeout, late=late):
        prepared = job.prepare(module, config, _who_prepares(config.out, module.KIND, world))
    launch = Launch(options.job, procs, options.nodes)
    if plan := os.environ.get(PLAN):  # how it was submitted is on record
        _say_what_changed(Path(plan))
    elif world.rank == 0:
        write_launch(config.out, launch)
    began = time.monotonic()
    code = _start(module, config, world, options, procs, prepared)
    _say_how_it_ended(code, options.job, config.out, time.monotonic() - began)
    return code


def resume(options: argparse.Namespace) -> int:
    """The command that started RUN, with its own config -> exit code."""
    launch = read_launch(options.run)
    if launch.job == "pipeline":
        return _resume_pipeline(options, launch)
    if launch.backend != "local":
        if options.procs or options.nodes or options.node_rank or options.master:
            raise ValueError(f"{options.run} was submitted; to start it otherwise: genloop submit")
        return resubmit(options.run, launch, options.words)
    words = words_to_resume(options.run, launch, options.words)
    if Path(launch.folder).is_dir():
        os.chdir(launch.folder)
    options.job, options.words = words[0], words[1:]
    options.procs = options.procs or str(launch.procs)
    options.nodes = options.nodes or 1
    return execute(options)


def _resume_pipeline(options: argparse.Namespace, launch: Launch) -> int:
    from launch.commands import pipeline

    os.chdir(launch.folder)
    options.name, options.words = launch.options["name"], [*launch.options["words"], *options.words]
    options.procs, options.cluster = options.procs or launch.options["procs"], launch.cluster or None
    options.only = launch.options.get("only", [])
    return pipeline.execute(options)


def _check_nodes(options: argparse.Namespace, kind: str) -> None:
    """Whether the machines can find each other, before anything starts."""
    if options.nodes < 1:
        raise ValueError(f"--nodes: at least 1, found {options.nodes}")
    if not 0 <= options.node_rank < options.nodes:
        raise ValueError(
            f"--node-rank: 0 to {options.nodes - 1} with --nodes {options.nodes}, found {options.node_rank}"
        )
    meets = options.nodes > 1 and kind == "collective"
    if not meets and not options.master:
        return
    host, _, port = options.master.partition(":")
    if not host:
        raise ValueError("--master: the workers of a collective job on several machines meet at HOST[:PORT]")
    number = int(port) if port.isdecimal() else PORT if not port else 0
    if not 0 < number < 65536:
        raise ValueError(f"--master: {port!r} is no port")
    try:
        socket.getaddrinfo(host, number)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"--master: {host} cannot be resolved from here: {reason}") from None
    if meets and options.node_rank == 0:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("", number))
            except OSError as error:
                raise ValueError(f"--master: port {number} cannot be used on this machine: {error.strerror}") from None
    options.master = f"{host}:{number}"


def _who_prepares(run: Path, kind: str, world: World) -> World:
    """Tasks of an array may start hours apart, in any order: the first that finds no run checks and hashes the input.

    Of several at the same moment one decides, see `start_run`. The ranks of a collective job start together.
    """
    begun = kind == "collective" or PLAN not in os.environ or (run / "run.json").exists()
    return world if begun else World(0, world.world_size)


def _first_of(options: argparse.Namespace, procs: int) -> World:
    """The first worker of this machine: on the first it checks and hashes the input, elsewhere it waits for that."""
    return World(options.node_rank * procs, options.nodes * procs)


def _workers(module: ModuleType, config: "JobConfig", options: argparse.Namespace, procs: int) -> Workers:
    return Workers(
        module.__name__,
        options.words,
        procs,
        config.out,
        nodes=options.nodes,
        node_rank=options.node_rank,
        endpoint=options.master,
        hang_timeout=options.hang_timeout,
    )


def _start(
    module: ModuleType,
    config: "JobConfig",
    world: World,
    options: argparse.Namespace,
    procs: int,
    prepared: "Prepared",
) -> int:
    """In this process, where a debugger works, or in N workers."""
    if procs == options.nodes == 1 and PLAN not in os.environ:
        with shown(config.out):
            return job.execute(module, config, world, prepared.checked)
    workers = _workers(module, config, options, procs)
    return run_workers(replace(workers, environment={job.PREPARED: prepared.digest}), module.KIND)


def _say_what_changed(plan: Path) -> None:
    """A line when the code is not that of the submission."""
    then, now = read_object(plan / "plan.json").get("environment", {}), environment.describe()
    changed = [key for key in ("genloop", "code") if then.get(key) != now[key]]
    if changed:
        terminal.err(f"genloop: the code has changed since the submission of {plan.name}")


def _dry_run(module: ModuleType, config: "JobConfig", options: argparse.Namespace, procs: int) -> int:
    """Print the commands of the workers; nothing is written."""
    check = getattr(module, "check", None)
    if check:
        check(config)
    workers = _workers(module, config, options, procs)
    if procs == options.nodes == 1:
        terminal.out(shlex.join([sys.executable, "-m", module.__name__, *map(redact_word, options.words)]))
        return 0
    for rank in workers.ranks if module.KIND == "independent" else [None]:
        variables, command = workers.command(module.KIND, rank)
        settings = (f"{key}={value}" for key, value in variables.items())
        terminal.out(" ".join([*settings, shlex.join(map(redact_word, command))]))
    return 0


def _say_how_it_ended(code: int, name: str, run: Path, seconds: float) -> None:
    """The outcome, and the command that a user needs next."""
    if code == 0:
        terminal.err(f"{name}: done in {duration(seconds)}: {run}")
    elif code == STOPPED:
        terminal.err(f"{name}: stopped after {duration(seconds)} with work left; `genloop resume {run}` goes on")
    elif run.is_dir():
        terminal.err(f"genloop: `genloop logs {run} --errors` says why, `genloop resume {run}` goes on")
