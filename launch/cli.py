"""The `genloop` command: jobs, run, status, report, ckpts. Imports next to nothing until it knows what to do."""

import argparse
import logging
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NoReturn

from launch.commands import ckpts as checkpoints

if TYPE_CHECKING:
    from genloop.config import JobConfig
    from genloop.distributed import World
    from genloop.job import Prepared

BAD_INPUT, STOPPED = 2, 75
EXAMPLES = """
  genloop run generate tiny out=runs/a --procs 2     a job, one of its presets, what differs, two workers
  genloop run generate --help                        the manual of a job and its config keys
  torchrun --nproc-per-node 8 -m jobs.JOB PRESET [key=value ...]     always works too
"""


class Parser(argparse.ArgumentParser):
    """Complains in one line."""

    def error(self, message: str) -> NoReturn:
        """Exit 2."""
        self.exit(BAD_INPUT, f"genloop: {message}; see {self.prog} --help\n")


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Entry point of the console script."""
    try:
        sys.exit(command(list(sys.argv[1:] if arguments is None else arguments)))
    except KeyboardInterrupt:  # before a job runs, which ends itself cleanly
        print("genloop: stopped; the same command goes on from here", file=sys.stderr)
        sys.exit(STOPPED)
    except BrokenPipeError:  # `genloop jobs | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def command(arguments: list[str]) -> int:
    """Parse the command line and do what it says -> exit code."""
    parser, known = _parser()
    if not arguments:
        parser.print_help()
        return 0
    options, rest = parser.parse_known_args(_suggested(parser, known, arguments))
    unknown = [word for word in rest if word.startswith("-") or options.command != "run"]
    if unknown:
        parser.error(f"unknown argument {unknown[0]!r}")
    if options.command == "run":
        options.words += rest
    code: int = options.execute(options)
    return code


def _parser() -> tuple[Parser, list[str]]:
    """The parser, and the names of its commands."""
    parser = Parser(prog="genloop", description="Batch jobs for text-to-image generation.", epilog=EXAMPLES)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    jobs = commands.add_parser("jobs", help="what there is, one line each")
    jobs.set_defaults(execute=_jobs)
    run = commands.add_parser("run", help="run a job: JOB PRESET [key=value ...] [--procs N]", add_help=False)
    run.add_argument("job", nargs="?", metavar="JOB", help="a name of `genloop jobs`, or a dotted module path")
    run.add_argument("words", nargs="*", metavar="PRESET key=value", help="a preset, then what differs from it")
    run.add_argument("--procs", type=int, default=1, metavar="N", help="workers on this machine (1)")
    run.add_argument("-h", "--help", action="store_true", help="the manual of the job and its config keys")
    run.set_defaults(execute=_run, parser=run)
    status = commands.add_parser("status", help="progress of all workers, rate, time left, failures")
    status.add_argument("run", type=Path, metavar="RUN", help="a run folder")
    status.add_argument("--watch", action="store_true", help="keep looking until the run is over")
    status.add_argument("--json", action="store_true", help="one JSON object")
    status.set_defaults(execute=_status)
    report = commands.add_parser("report", help="one self-contained HTML file; several runs are compared")
    report.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run folders of evaluate")
    report.add_argument("--out", type=Path, metavar="FOLDER", help="where to (default: RUN/report of the first)")
    report.set_defaults(execute=_report)
    checkpoints.add_parser(commands)
    commands.choices["ckpts"].set_defaults(execute=_ckpts)
    return parser, list(commands.choices)


def _suggested(parser: Parser, known: list[str], arguments: list[str]) -> list[str]:
    """The same arguments; an unknown command ends here, with the one that was probably meant."""
    from genloop.registry import did_you_mean

    if not arguments[0].startswith("-") and arguments[0] not in known:
        parser.error(f"unknown command {arguments[0]!r}{did_you_mean(arguments[0], known)} ({', '.join(known)})")
    return arguments


def _jobs(options: argparse.Namespace) -> int:
    from launch.catalog import summaries

    found = summaries()
    width = max(map(len, found), default=0)
    for name, summary in found.items():
        print(f"{name:<{width}}  {summary}")
    return 0


def _run(options: argparse.Namespace) -> int:
    if options.help and options.job is None:
        options.parser.print_help()
        return 0
    if options.job is None:
        options.parser.error("which job? `genloop jobs` lists them")
    if options.procs < 1:
        options.parser.error(f"--procs: at least 1, found {options.procs}")

    from genloop import job
    from genloop.distributed import World
    from genloop.registry import MissingPackage
    from launch.catalog import import_job, manual

    try:
        module = import_job(options.job)
        if options.help:
            print(manual(module))
            return 0
        world = World.from_environment()
        config = job.parse(module, options.words)
        prepared = job.prepare(module, config, world)
    except (ValueError, OSError, MissingPackage) as error:
        return _refuse(error)
    began = time.monotonic()
    code = _execute(module, config, world, options, prepared)
    _say_how_it_ended(code, options.job, config.out, time.monotonic() - began)
    return code


def _execute(
    module: ModuleType, config: "JobConfig", world: "World", options: argparse.Namespace, prepared: "Prepared"
) -> int:
    """In this process, where a debugger works, or in N workers."""
    from genloop import job
    from launch.backends.local import Workers, run_workers
    from launch.watch.progress import shown

    if options.procs == 1:
        with shown(config.out):
            return job.execute(module, config, world, prepared.checked)
    workers = Workers(module.__name__, options.words, options.procs, config.out, {job.PREPARED: prepared.digest})
    return run_workers(workers, module.KIND)


def _say_how_it_ended(code: int, name: str, run: Path, seconds: float) -> None:
    from launch.watch.status import duration

    if code == 0:
        print(f"{name}: done in {duration(seconds)}: {run}", file=sys.stderr)
    elif code == STOPPED:
        print(f"{name}: stopped after {duration(seconds)} with work left; the same command goes on", file=sys.stderr)


def _status(options: argparse.Namespace) -> int:
    from launch.watch.progress import watch
    from launch.watch.status import as_json, lines, read_state

    try:
        if options.watch:
            watch(options.run)
        state = read_state(options.run)
    except (ValueError, OSError) as error:
        return _refuse(error)
    except KeyboardInterrupt:
        return 0
    print(as_json(state) if options.json else "\n".join(lines(state)))
    return 0


def _report(options: argparse.Namespace) -> int:
    from genloop.registry import load

    try:
        page = load("genloop.report:write_report")(options.runs, options.out or options.runs[0] / "report")
    except (ValueError, OSError, ImportError) as error:
        return _refuse(error)
    print((page.parent / "table.md").read_text(encoding="utf-8"))
    print(page)
    return 0


def _ckpts(options: argparse.Namespace) -> int:
    logging.basicConfig(format="genloop: %(message)s", level=logging.WARNING)
    try:
        checkpoints.run(options)
    except (ValueError, OSError, ImportError) as error:
        return _refuse(error)
    return 0


def _refuse(error: BaseException) -> int:
    from genloop.job import one_line

    print(f"genloop: {one_line(error)}", file=sys.stderr)
    return BAD_INPUT


if __name__ == "__main__":
    main()
