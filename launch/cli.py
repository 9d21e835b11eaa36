"""The `genloop` command. Imports next to nothing until it knows what to do."""

import sys
from collections.abc import Sequence
from typing import NoReturn

from genloop import terminal
from launch.arguments import BAD_INPUT, parser

STOPPED = 75
_TAKES_WORDS = {"run", "resume", "submit", "pipeline", "plan"}  # key=value


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Entry point of the console script."""
    try:
        sys.exit(command(list(sys.argv[1:] if arguments is None else arguments)))
    except KeyboardInterrupt:  # before a job runs, which ends itself cleanly
        terminal.err("genloop: stopped; the same command goes on from here")
        sys.exit(STOPPED)


def command(arguments: list[str]) -> int:
    """Parse the command line and do what it says -> exit code. Bad input is one line and exit code 2."""
    found, known = parser()
    if not arguments:
        found.print_help()
        return 0
    from genloop.logging import set_up_messages
    from genloop.registry import load

    set_up_messages()
    if not arguments[0].startswith("-") and arguments[0] not in known:
        found.error(_unknown(arguments, known))
    options, rest = found.parse_known_args(arguments)
    unknown = [word for word in rest if word.startswith("-") or options.command not in _TAKES_WORDS]
    if unknown:
        found.error(f"unknown argument {unknown[0]!r}")
    if rest:
        options.words += rest
    try:
        code: int = load(options.execute)(options)
    except (ValueError, OSError, ImportError, load("genloop.rundir:BadInput")) as error:
        from genloop.job import one_line

        terminal.err(f"genloop: {one_line(error)}")
        return BAD_INPUT
    return code


def _unknown(arguments: list[str], known: list[str]) -> str:
    """Why the first word is no command, and what was meant: a job without its `run`, or a command like it."""
    from genloop.registry import did_you_mean
    from launch.catalog import job_files

    name = arguments[0]
    if name in job_files():
        return f"{name!r} is a job; did you mean `genloop run {' '.join(arguments)}`?"
    return f"unknown command {name!r}{did_you_mean(name, known)} ({', '.join(known)})"


if __name__ == "__main__":
    main()
