"""`genloop jobs` and `genloop report`."""

import argparse

from genloop import terminal
from genloop.registry import load
from launch.catalog import presets, summaries


def jobs(options: argparse.Namespace) -> int:
    """Print what there is -> exit code."""
    found = summaries()
    if not options.presets:
        terminal.out("\n".join(terminal.aligned(found.items())))
        return 0
    parts = [[*terminal.aligned([row]), *terminal.aligned(presets(row[0]).items(), 4)] for row in found.items()]
    terminal.out("\n".join(line for lines in parts for line in lines))
    return 0


def report(options: argparse.Namespace) -> int:
    """Write the page of one or several runs, print its table and where it is -> exit code."""
    runs = load("launch.commands.pipeline:runs_to_report")(options.runs)
    page = load("genloop.report:write_page")(runs, options.out or load("genloop.report:default_folder")(options.runs))
    terminal.out_markdown((page.parent / "table.md").read_text(encoding="utf-8"))
    terminal.out(f"\n{page}")
    return 0
