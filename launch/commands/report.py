"""`genloop jobs` and `genloop report`."""

import argparse

from genloop import terminal
from genloop.registry import load
from launch.catalog import presets, summaries


def jobs(options: argparse.Namespace) -> int:
    """Print what there is -> exit code."""
    lines = []
    width = max(map(len, found := summaries()), default=0)
    for name, summary in found.items():
        lines.append(f"{name:<{width}}  {summary}")
        known = presets(name) if options.presets else {}
        inner = max(map(len, known), default=0)
        lines += [f"    {preset:<{inner}}  {head}".rstrip() for preset, head in known.items()]
    terminal.out("\n".join(lines))
    return 0


def report(options: argparse.Namespace) -> int:
    """Write the page of one or several runs, print its table and where it is -> exit code."""
    runs = load("launch.commands.pipeline:runs_to_report")(options.runs)
    page = load("genloop.report:write_page")(runs, options.out or load("genloop.report:default_folder")(options.runs))
    terminal.out_markdown((page.parent / "table.md").read_text(encoding="utf-8"))
    terminal.out(f"\n{page}")
    return 0
