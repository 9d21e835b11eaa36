"""The live view of a run: a table that redraws itself on a terminal, a plain line every few seconds elsewhere."""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from genloop.terminal import clean, err
from launch.watch.status import RunState, alarm_line, duration, read_state, totals

if TYPE_CHECKING:
    from rich.console import RenderableType

SCAN_SHARE = 20  # a scan of the run folder may take one part in so many of the time


class PlainView:
    """One line on standard error, when something has been done."""

    interval = 5.0  # seconds between two looks

    def __init__(self) -> None:
        self._shown = ""

    def show(self, state: RunState, *, last: bool) -> None:
        """Print the totals; that the rate and the time left are others by now is no news."""
        news = totals(replace(state, rate=0.0, seconds_left=None))
        if news != self._shown and state.state != "starting":
            err(totals(state))
            self._shown = news

    def close(self) -> None:
        """Nothing is held."""


class TerminalView:
    """A bar, a line of totals and a table of workers that redraw themselves on standard error."""

    interval = 1.0

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._live = Live(console=Console(stderr=True, highlight=False), auto_refresh=False)
        self._live.start()

    def show(self, state: RunState, *, last: bool) -> None:
        """Redraw; a job that counts nothing leaves nothing behind."""
        self._live.update("" if last and state.state == "starting" else table(state), refresh=True)

    def close(self) -> None:
        """Keep the last picture and give the screen back."""
        self._live.stop()


def table(state: RunState) -> "RenderableType":
    """The state as something rich can draw."""
    from rich.console import Group
    from rich.markup import escape
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    workers = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("worker", "state", "unit"):
        workers.add_column(column)
    for column in ("steps", "items", "items/s", "last sign"):
        workers.add_column(column, justify="right")
    for worker in state.workers:
        style = "red" if worker.state in {"lost", "failed"} else "" if worker.alive else "dim"
        cells = (
            str(worker.rank),
            clean(worker.state),
            clean(worker.unit or ""),
            str(worker.work_steps or ""),
            str(worker.items),
            f"{worker.rate:.2g}",
        )
        workers.add_row(*cells, duration(worker.silent), style=style)
    bar = Table.grid()
    total, done = (state.steps.total, state.steps.done) if state.steps else (state.units, state.units_done)
    if total:
        bar.add_row(ProgressBar(total=total, completed=done, width=60))
    failures = [f"[red]unit {f.unit}: {escape(clean(f.reason))}[/red]" for f in state.failures]
    alarms = [f"[yellow]{escape(clean(alarm_line(alarm)))}[/yellow]" for alarm in state.alarms]
    tables = [bar, *([workers] if state.workers else [])]
    return Group(f"[bold]{escape(clean(totals(state)))}[/bold]", *tables, *alarms, *failures)


@contextmanager
def shown(run: Path) -> Iterator[None]:
    """Show the progress of a run while the body works; `breakpoint()` in the body takes the view away first."""
    view: PlainView | TerminalView = TerminalView() if sys.stderr.isatty() else PlainView()
    over = threading.Event()
    thread = threading.Thread(target=_look, args=(run, view, over), name="progress", daemon=True)
    hook = sys.breakpointhook

    def close() -> None:
        over.set()
        thread.join()

    def pause(*arguments: object, **options: object) -> object:
        close()
        if hook is not sys.__breakpointhook__ or os.environ.get("PYTHONBREAKPOINT"):
            return hook(*arguments, **options)
        import pdb

        pdb.Pdb().set_trace(sys._getframe(1))  # in the caller, not here
        return None

    sys.breakpointhook = pause
    thread.start()
    try:
        yield
    finally:
        sys.breakpointhook = hook
        close()


def watch(run: Path, goes_on: Callable[[], bool], pause: float = 1.0) -> None:
    """Show the progress of a run while `goes_on()`, which is asked every `pause` seconds."""
    with shown(run):
        while goes_on():
            time.sleep(pause)


def _look(run: Path, view: PlainView | TerminalView, over: threading.Event) -> None:
    """Thread body: look, show, wait; one last look at the end."""
    pause = 0.0
    try:
        while True:
            last = over.wait(pause)
            began = time.monotonic()
            with suppress(OSError, ValueError):  # the folder is not there yet, or is being written: look again
                state = read_state(run)
                if last and state.steps and state.state == "running":  # its workers have just ended
                    state = replace(state, state="stopped")
                view.show(state, last=last)
            pause = max(view.interval, SCAN_SHARE * (time.monotonic() - began))
            if last:
                return
    finally:
        view.close()
