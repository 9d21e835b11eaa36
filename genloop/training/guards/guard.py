"""The guard of a training: looks, raises alarms, remembers the best checkpoint, ends the training and rolls back.

The loop calls it; rank 0 decides, and `decision` tells the others. What it knows is in the run folder: levels and the
best value are read from metrics.jsonl, the images of step 0 from RUN/previews. So a resumed run decides as an
uninterrupted one. RUN/alarms.jsonl has a row an alarm; RUN/stopped.json says why a training ended early.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from genloop.distributed import World
from genloop.reading import object_or_empty, read_bytes, read_json_object
from genloop.rundir import RunFailed, append_line, append_metrics, write_json
from genloop.training.guards.alarms import (
    CHOSEN,
    CHOSEN_RATIO,
    HELD_OUT_CHOSEN,
    WATCHED,
    Found,
    change_of,
    divergence,
    falling_chosen,
    reward_hacking,
    strange_images,
)
from genloop.training.guards.image_statistics import STATISTICS
from genloop.training.guards.previews import Previews, Table
from genloop.training.guards.settings import AlarmSettings, GuardSettings
from genloop.training.reductions import largest_over_ranks
from genloop.training.session import check_lock
from genloop.training.state import best_checkpoint, cut_lines, load_result, mark_best
from genloop.training.task import Decision, Watch

log = logging.getLogger(__name__)
ALARMS, STOPPED = "alarms.jsonl", "stopped.json"
JUDGE, HELD_OUT = "judge", "held_out_judge"  # of previews; in metrics.jsonl preview_judge, preview_held_out_judge
GO_ON = "guards.on_alarm=report goes on from there"


class Guard(Watch):
    """Watches one training; called on all ranks."""

    def __init__(self, settings: AlarmSettings, run: Path, world: World, previews: Previews | None = None) -> None:
        self.settings, self.run, self.world, self.previews = settings, run, world, previews
        self.every = settings.every if isinstance(settings, GuardSettings) and previews is not None else 0
        self.is_stopped = False
        self._history: dict[str, list[float]] = {}
        self._first: Table = {}
        self._best: float | None = None
        self._alarms: list[Found] = []  # since the last decision
        self._is_best = False  # whether a value since then is the best
        self._is_quiet, self._stops = True, list[Found]()  # of the last decision: no alarm; those that end the training

    def begin(self, step: int) -> dict[str, Any]:
        """Before the first step of this process; the model is whole."""
        if self.world.rank == 0:
            cut_lines(self.run / ALARMS, step if step else -1)
            self._read_history()
            self.is_stopped = self._stays_stopped()
        if self.world.world_size > 1:
            self.is_stopped = largest_over_ranks(int(self.is_stopped)) > 0
        self._is_best = not step  # what training starts from is kept, to roll back to
        if self.previews is None or self.is_stopped:
            return {}
        if step:
            self._first = self.previews.read(0) if self.world.rank == 0 else {}
            return {}
        self._first = self.previews.look(0)
        return _means(self._first)

    def watch(self, line: Mapping[str, Any]) -> None:
        """Every new line of metrics.jsonl; on rank 0."""
        found = divergence(self._history, line, self.settings)
        self._remember(line)
        if isinstance(self.settings, GuardSettings) and (CHOSEN in line or HELD_OUT_CHOSEN in line):
            found += falling_chosen(self._history, self.settings)
        self._raise(line["step"], found)

    def after_step(self, step: int) -> dict[str, Any]:
        """A look at the images -> numbers for metrics.jsonl; the model is whole."""
        assert self.previews is not None and isinstance(self.settings, GuardSettings)
        table = self.previews.look(step)
        if self.world.rank:
            return {}
        level = self.settings.level
        line = _means(table)
        for name in self.previews.judges:
            change = change_of(table[name], self._first[name], level)
            line |= {f"preview_{name}_change": change.estimate}
            line |= {f"preview_{name}_change_low": change.low, f"preview_{name}_change_high": change.high}
        looks = {name: self._first[name] for name in STATISTICS}
        found = strange_images(table, looks, self.settings)
        if {JUDGE, HELD_OUT} <= table.keys():
            judge, held_out = (change_of(table[name], self._first[name], level) for name in (JUDGE, HELD_OUT))
            found += reward_hacking(judge, held_out, len(self._first[JUDGE]))
        self._raise(step, found)
        return line

    def decision(self) -> Decision:
        """What to do after what was seen since the last decision; the same on all ranks."""
        alarms, self._alarms = self._alarms, []
        is_best, self._is_best = self._is_best, False
        self._is_quiet = not alarms
        self._stops = [found for found in alarms if found.kind in self.settings.stop_on]
        stop = bool(self._stops) and self.settings.on_alarm != "report"
        code = (is_best and self.settings.keeps_best and not stop) + 2 * stop
        if self.world.world_size > 1:
            code = largest_over_ranks(code)
        self.is_stopped = bool(code & 2)
        return Decision(keep=bool(code & 1), stop=self.is_stopped)

    def saved(self, step: int, decision: Decision) -> None:
        """A checkpoint of this step is complete; on rank 0."""
        if decision.keep or (self._best_key is None and self.settings.keeps_best and self._is_quiet):
            mark_best(self.run, step)
        if decision.stop:
            alarms = [{"alarm": found.kind, "text": found.text} for found in self._stops]
            write_json(self.run / STOPPED, {"step": step, "alarms": alarms, "action": self.settings.on_alarm})

    def conclude(self, model: nn.Module, *, use_averages: bool) -> None:
        """After the last step: a training that an alarm has ended leaves its best checkpoint, or fails."""
        if not self.is_stopped:
            return
        record = read_json_object(self.run / STOPPED)
        why = f"stopped at step {record['step']}: {'; '.join(alarm['text'] for alarm in record['alarms'])}"
        best = best_checkpoint(self.run)
        if self.settings.on_alarm == "fail":
            raise RunFailed(f"{why}; the best checkpoint is {best or 'none'}; {GO_ON}")
        if best is None:
            raise RunFailed(f"{why}; there is no checkpoint to roll back to; {GO_ON}")
        load_result(best, model, use_averages=use_averages)
        if self.world.rank == 0:
            log.warning("%s; %s is the result; %s", why, best, GO_ON)

    @property
    def _best_key(self) -> str | None:
        if self.settings.best_by is not None:
            return self.settings.best_by.removeprefix("-")
        has_judge = self.previews is not None and HELD_OUT in self.previews.judges
        return f"preview_{HELD_OUT}" if has_judge else None

    def _remember(self, line: Mapping[str, Any]) -> None:
        for key in (*WATCHED, CHOSEN, CHOSEN_RATIO, HELD_OUT_CHOSEN):
            if isinstance(line.get(key), int | float):
                self._history.setdefault(key, []).append(float(line[key]))
        value = line.get(self._best_key or "")
        if isinstance(value, int | float):
            signed = -value if (self.settings.best_by or "").startswith("-") else value
            if self._best is None or signed > self._best:
                self._best, self._is_best = signed, True

    def _read_history(self) -> None:
        path = self.run / "metrics.jsonl"
        if path.is_file():
            for line in read_bytes(path).split(b"\n"):
                self._remember(object_or_empty(line))
        self._is_best = False

    def _stays_stopped(self) -> bool:
        """Whether an earlier start was ended by an alarm that ends it still."""
        path = self.run / STOPPED
        if not path.is_file():
            return False
        record = read_json_object(path)
        kinds = {alarm["alarm"] for alarm in record["alarms"]}
        if self.settings.on_alarm != "report" and kinds & set(self.settings.stop_on):
            return True
        log.warning("it was stopped at step %d by %s and goes on now", record["step"], ", ".join(sorted(kinds)))
        path.unlink()
        (self.run / "done.json").unlink(missing_ok=True)
        return False

    def _raise(self, step: int, alarms: Sequence[Found]) -> None:
        """Write alarms down, and warn."""
        if not alarms:
            return
        check_lock(self.run)
        for found in alarms:
            log.warning("step %d, alarm %s: %s", step, found.kind, found.text)
            append_line(self.run / ALARMS, {"step": step, "alarm": found.kind, "text": found.text})
        append_metrics(self.run, {"step": step, **{f"alarm_{found.kind}": 1 for found in alarms}})
        self._alarms += alarms


def _means(table: Table) -> dict[str, float]:
    """Of each measure over the prompts that have one."""
    known = {name: [value for value in row if value == value] for name, row in table.items()}
    return {f"preview_{name}": sum(row) / len(row) for name, row in known.items() if row}
