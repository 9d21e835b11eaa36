"""The command line of `genloop`: every command, its arguments, and what carries it out (imported when asked for)."""

import argparse
import math
import sys
from pathlib import Path
from typing import Any, NoReturn

from genloop import __version__, terminal

BAD_INPUT = 2
HANG_TIMEOUT = 1800.0
MEET_TIMEOUT = 60.0  # also of genloop.nodes
EXAMPLES = """
  genloop run generate tiny out=runs/a --procs 2     a job, one of its presets, what differs, two workers
  genloop run generate --help                        the manual of a job and its config keys
  torchrun --nproc-per-node 8 -m jobs.JOB PRESET [key=value ...]     always works too
"""
_COMPLETION = "bash: > ~/.local/share/bash-completion/completions/genloop; zsh: > FILE, and source FILE in ~/.zshrc"
_TRUST = "unpickle the file in full, which runs code that it names; only for files whose origin you trust"


class Parser(argparse.ArgumentParser):
    """Complains in one line."""

    def error(self, message: str) -> NoReturn:
        """Exit 2."""
        self.exit(BAD_INPUT, f"genloop: {message}; see {self.prog} --help\n")

    def _print_message(self, message: str, file: object = None) -> None:
        """All that a parser prints, help and complaints."""
        (terminal.out if file is sys.stdout else terminal.err)(message)


def parser() -> tuple[Parser, list[str]]:
    """The parser, and the names of its commands; `execute` of what it returns is "module:function"."""
    found = Parser(prog="genloop", description="Batch jobs for text-to-image generation.", epilog=EXAMPLES)
    found.formatter_class = argparse.RawDescriptionHelpFormatter
    found.add_argument("--version", action="version", version=f"genloop {__version__}")
    commands = found.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    jobs = commands.add_parser("jobs", help="what there is, one line each")
    jobs.add_argument("--presets", action="store_true", help="and the presets of each")
    jobs.set_defaults(execute="launch.commands.report:jobs")
    _add_run(commands)
    _add_pipeline(commands)
    _add_submit(commands)
    _add_plan(commands)
    _add_watch(commands)
    report = commands.add_parser("report", help="one self-contained HTML file; several runs are compared")
    report.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="one run of any job, or several of evaluate")
    report.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="where to (RUN/report, RUN/report-OTHERS)",
    )
    report.set_defaults(execute="launch.commands.report:report")
    _add_ckpts(commands)
    completion = commands.add_parser("completion", help="a script that completes commands, jobs, presets and keys")
    completion.add_argument("shell", choices=("bash", "zsh"), help=_COMPLETION)
    completion.set_defaults(execute="launch.commands.completion:run")
    return found, list(commands.choices)


def _add_run(commands: Any) -> None:
    run = commands.add_parser("run", help="run a job: JOB PRESET [key=value ...] [--procs N]", add_help=False)
    run.add_argument("job", nargs="?", metavar="JOB", help="a name of `genloop jobs`, or a dotted module path")
    run.add_argument("words", nargs="*", metavar="PRESET key=value", help="a preset, then what differs from it")
    _add_places(run, procs="1")
    run.add_argument("--dry-run", action="store_true", help="check, print what would run, write nothing")
    run.add_argument("--print-config", action="store_true", help="print the whole config as YAML, run nothing")
    run.add_argument("-h", "--help", action="store_true", help="the manual of the job and its config keys")
    run.set_defaults(execute="launch.commands.run:execute", parser=run)
    resume = commands.add_parser("resume", help="the same command again, from the run folder")
    resume.add_argument("run", type=Path, metavar="RUN", help="a run folder")
    resume.add_argument("words", nargs="*", metavar="key=value", help="launch settings that differ: retry_failed=true")
    _add_places(resume, procs=None)
    resume.set_defaults(execute="launch.commands.run:resume", dry_run=False, print_config=False, help=False)


def _add_pipeline(commands: Any) -> None:
    pipeline = commands.add_parser("pipeline", help="run the jobs of configs/pipelines/NAME.yaml in order")
    pipeline.add_argument("name", metavar="NAME", help="a name in configs/pipelines, or a file")
    pipeline.add_argument("words", nargs="*", metavar="key=value", help="what differs: out=..., vars.KEY=...")
    pipeline.add_argument(
        "--procs", default="1", metavar="N", help="workers of stages that do not say; auto: one a GPU"
    )
    pipeline.add_argument("--cluster", metavar="FILE|NAME", help="submit every stage, each behind those it needs")
    pipeline.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="NAME",
        help="a stage or a row, and what it needs; again for more",
    )
    pipeline.add_argument("--dry-run", action="store_true", help="check, print the commands, write nothing")
    pipeline.set_defaults(execute="launch.commands.pipeline:execute")


def _add_plan(commands: Any) -> None:
    plan = commands.add_parser("plan", help="units, memory, disk and time of a job or pipeline, before it runs")
    plan.add_argument("name", metavar="JOB|PIPELINE", help="a job, or a name in configs/pipelines")
    plan.add_argument("words", nargs="*", metavar="PRESET key=value", help="as `run` and `pipeline` have them")
    plan.add_argument("--procs", default="1", metavar="N", help="workers (1); auto: one a GPU of this machine")
    plan.add_argument(
        "--vram", type=float, metavar="GB", help="memory of a GPU (GiB): whether it fits, else what would"
    )
    source = plan.add_mutually_exclusive_group()
    source.add_argument("--like", type=Path, metavar="RUN", help="time by an earlier run of the same job or pipeline")
    source.add_argument("--calibrate", type=int, metavar="K", help="time by K units or steps that are really done")
    plan.add_argument("--json", action="store_true", help="one JSON object")
    plan.add_argument("--keep", action="store_true", help="keep it in RUN/logs/plan.json, for the page of `report`")
    plan.set_defaults(execute="launch.commands.plan:execute")


def _add_places(parser: argparse.ArgumentParser, procs: str | None) -> None:
    parser.add_argument("--procs", default=procs, metavar="N", help="workers on this machine (1); auto: one a GPU")
    nodes = None if procs is None else 1
    parser.add_argument("--nodes", type=int, default=nodes, metavar="M", help="machines; each runs this command (1)")
    parser.add_argument("--node-rank", type=int, default=0, metavar="R", help="which of them this is, from 0")
    parser.add_argument("--master", default="", metavar="HOST[:PORT]", help="the first machine, for a collective job")
    meet = f"seconds in which the machines have to see each other in the run folder ({MEET_TIMEOUT:g})"
    parser.add_argument("--meet-timeout", type=seconds, default=MEET_TIMEOUT, metavar="S", help=meet)
    hang = f"stop all when a worker reaches no safe point for so many seconds ({HANG_TIMEOUT:g}; 0: never)"
    parser.add_argument("--hang-timeout", type=seconds, default=HANG_TIMEOUT, metavar="S", help=hang)


def seconds(text: str) -> float:
    """A time that passes; NaN would never be over, or at once."""
    found = float(text)
    if not 0 <= found < math.inf:
        raise argparse.ArgumentTypeError(f"seconds, at least 0, found {text}")
    return found


def _add_submit(commands: Any) -> None:
    submit = commands.add_parser("submit", help="run a job on a cluster: JOB PRESET [key=value ...] --cluster NAME")
    submit.add_argument("job", metavar="JOB", help="a name of `genloop jobs`, or a dotted module path")
    submit.add_argument("words", nargs="*", metavar="PRESET key=value", help="a preset, then what differs from it")
    submit.add_argument("--cluster", metavar="FILE|NAME", help="a cluster file, or a name of configs/cluster")
    submit.add_argument("--nodes", type=int, metavar="M", help="nodes that a collective job has together (1)")
    submit.add_argument("--array", type=int, metavar="K", help="tasks of an independent job, a node each (1)")
    submit.add_argument("--gpus", metavar="N", help="GPUs a node")
    submit.add_argument("--procs", metavar="N", help="workers a node (one a GPU)")
    submit.add_argument("--time", metavar="T", help="limit of one start: 30m, 4h, D-HH:MM:SS")
    submit.add_argument("--partition", metavar="P", help="Slurm's partition")
    submit.add_argument("--requeue-limit", metavar="N", help="how often it may go on after a stop with work left")
    after = "start when this run, or the job of this id, has succeeded; may be given again"
    submit.add_argument("--after", action="append", default=[], metavar="RUN|ID", help=after)
    submit.add_argument("--dry-run", action="store_true", help="check, print the script, write nothing")
    submit.set_defaults(execute="launch.commands.submit:execute")


def _add_watch(commands: Any) -> None:
    status = commands.add_parser("status", help="progress of all workers, rate, time left, failures")
    status.add_argument("run", type=Path, metavar="RUN", help="a run folder")
    status.add_argument("--watch", action="store_true", help="keep looking until the run is over")
    status.add_argument("--json", action="store_true", help="one JSON object")
    status.set_defaults(execute="launch.commands.watch:status")
    logs = commands.add_parser("logs", help="what the workers of a run wrote; after a failure its cause first")
    logs.add_argument("run", type=Path, metavar="RUN", help="a run folder")
    logs.add_argument("--rank", type=int, metavar="R", help="of one worker, in full")
    logs.add_argument("--errors", action="store_true", help="failures alone: the cause with its traceback, the others")
    logs.add_argument("--follow", action="store_true", help="go on printing what is written, until the run is over")
    logs.set_defaults(execute="launch.commands.watch:logs")
    cancel = commands.add_parser("cancel", help="stop a run cleanly, where it was started or in the queue")
    cancel.add_argument("run", type=Path, metavar="RUN", help="a run folder")
    cancel.set_defaults(execute="launch.commands.watch:cancel")


def _add_ckpts(commands: Any) -> None:
    parser = commands.add_parser("ckpts", help="checkpoints: list, fetch NAME, verify NAME, convert KIND FILE FOLDER")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION", parser_class=Parser)
    actions.add_parser("list", help="names that jobs know, whether they are there, licence, origin")
    fetch = actions.add_parser("fetch", help="download what was published, checked, into its place")
    fetch.add_argument("names", nargs="*", metavar="NAME", help="names of the list")
    fetch.add_argument("--for", dest="preset", metavar="JOB/PRESET", help="all that a preset names and is not there")
    verify = actions.add_parser("verify", help="compare the files of a checkpoint with their sha256")
    verify.add_argument("name", metavar="NAME", help="a name, a folder with a manifest.json, a LoRA file")
    convert = actions.add_parser(
        "convert", help="another project's file -> a folder in transformers' or diffusers' layout"
    )
    convert.add_argument("kind", metavar="KIND", help="mask2former, lora")
    convert.add_argument("file", type=Path, metavar="FILE", help="the official .pth of mmdet 2.x or 3.x; a LoRA file")
    convert.add_argument("folder", metavar="FOLDER", help="a new folder, or a name of the list")
    convert.add_argument("--preprocess", metavar="mmdet2|mmdet3", help="pixels (default: as the mmdet of the file)")
    convert.add_argument("--base", metavar="PIPELINE", help="lora: the pipeline it belongs to, a folder or a name")
    convert.add_argument("--trust-pickle", action="store_true", help=_TRUST)
    parser.set_defaults(execute="launch.commands.ckpts:run")
