"""`genloop jobs` and `genloop report`."""

import argparse

from genloop import terminal
from genloop.registry import load
from launch.catalog import summaries
from launch.commands.pipeline import runs_to_report


def jobs(options: argparse.Namespace) -> int:
    """Print what there is -> exit code."""
    found = summaries()
    width = max(map(len, found), default=0)
    terminal.out("\n".join(f"{name:<{width}}  {summary}" for name, summary in found.items()))
    return 0


def report(options: argparse.Namespace) -> int:
    """Write the page of one or several runs, print its table and where it is -> exit code."""
    runs = runs_to_report(options.runs)
    page = load("genloop.report:write_page")(runs, options.out or options.runs[0] / "report")
    terminal.out(f"{(page.parent / 'table.md').read_text(encoding='utf-8')}\n{page}")
    return 0
