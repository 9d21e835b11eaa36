"""The job runner: `run(main, Config)` parses, checks, writes provenance, runs, and turns the outcome into an exit code.

A job is a module with a manual (its docstring), KIND, Config and main(config, world, checked). Optionally it has
check(config), which refuses bad input before anything is written and returns what it read on the way (`checked`; None
without it), and inputs(config, checked), which names files whose content enters the fingerprint beside its InputPath
fields. Nothing is parsed twice: `inputs` and `main` use what `check` returned.

Exit codes: 0 done, 1 failed, 2 bad config or input, 75 stopped cleanly with work left.
"""

import importlib
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from genloop import environment, terminal
from genloop import logging as job_logging
from genloop.config import (
    DEVICE,
    INPUT,
    ConfigError,
    JobConfig,
    computing_keys,
    dump_yaml,
    find_preset,
    load_config,
    marked,
    preset_roots,
)
from genloop.distributed import EXIT_STOPPED, StopRequested, World
from genloop.failures import failure_file, record_failure
from genloop.hashing import sha256_tree
from genloop.ledger import unsettled
from genloop.nodes import node_of, together
from genloop.reading import parse_json
from genloop.redaction import redact
from genloop.registry import MissingPackage
from genloop.rundir import BadInput, RunFailed, await_run, check_run, fingerprint_of, start_run, write_json

log = logging.getLogger(__name__)
EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
PREPARED = "GENLOOP_PREPARED"  # set by the launcher for its workers: the digest of the run it has checked


class Prepared(NamedTuple):
    """A run that may start: the digest of its fingerprint, and what the job's `check` returned."""

    digest: str
    checked: Any


def run(main: Callable[[Any, World, Any], None], config_model: type[JobConfig]) -> None:
    """Entry point of `python -m jobs.NAME PRESET [key=value ...]`; never returns."""
    spec = sys.modules[main.__module__].__spec__
    module = importlib.import_module(spec.name if spec else main.__module__)
    sys.exit(run_command(module, sys.argv[1:]))


def run_command(module: ModuleType, arguments: Sequence[str]) -> int:
    """Parse, prepare and execute one job in this process -> exit code."""
    if "-h" in arguments or "--help" in arguments:
        terminal.out(module.__doc__ or "")
        return 0
    job_logging.set_up_messages()
    try:
        world = World.from_environment()
        config = parse(module, arguments)
        check_devices(config)
        node, nodes = node_of() if world.local_rank == 0 and PREPARED not in os.environ else (0, 1)
        with together(config.out, node, nodes, late=module.KIND == "independent"):
            prepared = prepare(module, config, world)
    except (ValueError, OSError, MissingPackage, BadInput) as error:
        if "world" not in locals() or world.local_rank == 0 or isinstance(error, TimeoutError):  # once a machine
            terminal.err(f"genloop: {one_line(error)}")
        return EXIT_BAD_INPUT
    return execute(module, config, world, prepared.checked)


def parse(module: ModuleType, arguments: Sequence[str]) -> Any:
    """[PRESET] key=value ... -> the job's config; ConfigError when they do not fit."""
    words = list(arguments)
    is_preset = bool(words) and ("=" not in words[0] or "/" in words[0].partition("=")[0])  # runs/lr=0.1/config.yaml
    preset = words.pop(0) if is_preset else None
    path = find_preset(job_name(module), preset, preset_roots()) if preset else None
    return load_config(module.Config, path, words)


def check_devices(config: JobConfig) -> None:
    """ConfigError for a key that asks for a GPU where torch, which is imported in that case alone, finds none."""
    asked = [key for key, value in marked(config, DEVICE) if value == "cuda"]
    if asked and not importlib.import_module("torch").cuda.is_available():
        raise ConfigError(f"{asked[0]}: cuda is asked for, but torch finds no GPU on this machine; use cpu or auto")


def prepare(module: ModuleType, config: JobConfig, world: World | None = None) -> Prepared:
    """Check input and run folder, then write the provenance. Nothing is written on an error.

    Rank 0 alone hashes the inputs; the other ranks wait for its fingerprint.
    """
    check = getattr(module, "check", None)
    checked = check(config) if check else None
    if digest := os.environ.get(PREPARED):
        return Prepared(digest, checked)
    job, keys = job_name(module), computing_keys(config)
    if world is not None and world.rank > 0:
        return Prepared(await_run(config.out, job, keys)["digest"], checked)
    fingerprint = fingerprint_of(job, keys, _input_hashes(module, config, checked))
    check_run(config.out, fingerprint)
    start_run(config.out, dump_yaml(plain(config)), fingerprint, environment.describe())
    return Prepared(fingerprint["digest"], checked)


def execute(module: ModuleType, config: JobConfig, world: World, checked: Any) -> int:
    """Run main with what `check` returned -> exit code 0 or 75. A failure is printed and leaves as SystemExit(1)."""
    job_logging.set_up(world.rank)
    failure_file(config.out / "logs", world.rank).unlink(missing_ok=True)  # of an earlier start
    try:
        return 0 if carry_out(module, config, world, checked) else EXIT_STOPPED
    except (StopRequested, KeyboardInterrupt):
        log.info("stopped; the same command goes on from here")
        return EXIT_STOPPED
    except RunFailed as error:
        record_failure(config.out, world, error)
        terminal.err(f"genloop: {one_line(error)}")
        raise SystemExit(error.exit_code) from error
    except Exception as error:
        record_failure(config.out, world, error)
        terminal.err("".join(traceback.format_exception(error)))
        where = "; ".join(getattr(error, "__notes__", [])) or f"rank {world.rank}"
        terminal.err(f"genloop: failed: {type(error).__name__}: {one_line(error)} [{where}]")
        raise SystemExit(EXIT_FAILED) from error


def carry_out(module: ModuleType, config: JobConfig, world: World, checked: Any) -> bool:
    """Run main -> whether the run is over, and not partly in other workers' hands."""
    with world.stop_signals():
        module.main(config, world, checked)
        world.check_stop()
    if world.world_size == 1 and (left := unsettled(config.out)):  # others of this world still look after theirs
        log.info("%d units are in other workers' hands; the same command takes them up when those are gone", left)
        return False
    if world.rank == 0 and not (config.out / "plan.json").exists():  # a job without units: say that it is over
        write_json(config.out / "done.json", {"finished": environment.now()})
    return True


def job_name(module: ModuleType) -> str:
    """jobs.generate -> generate."""
    return module.__name__.rpartition(".")[2]


def plain(config: JobConfig) -> dict[str, Any]:
    """The config as plain values without secrets, for config.yaml."""
    return redact(parse_json(config.model_dump_json()))


@contextmanager
def loading() -> Iterator[None]:
    """Around what loads weights: where they are refused, the job ends with one line and exit code 2."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise BadInput(one_line(error)) from error


@contextmanager
def note(text: str) -> Iterator[None]:
    """Add `text` (which prompt, which image) to any exception that passes through."""
    try:
        yield
    except Exception as error:
        error.add_note(text)
        raise


def one_line(error: BaseException) -> str:
    """An error as one line for a person."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


def _input_hashes(module: ModuleType, config: JobConfig, checked: Any) -> dict[str, str]:
    paths: dict[str, Any] = {key: path for key, path in marked(config, INPUT) if path is not None}
    extra = getattr(module, "inputs", None)
    found: Mapping[str, Path | str] = {**paths, **(extra(config, checked) if extra else {})}
    for key, path in found.items():
        if isinstance(path, Path) and not path.exists():
            raise ConfigError(f"{key}: no such file or folder: {path}")
        if isinstance(path, Path) and config.out.resolve().is_relative_to(path.resolve()):
            raise ConfigError(f"out: {config.out} lies in `{key}`, {path}, which it would change; use another `out`")
    return {key: sha256_tree(path) if isinstance(path, Path) else path for key, path in found.items()}
