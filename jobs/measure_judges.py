"""Measure what judges of answers cost, and what smaller forms keep of one.

    genloop run evaluate_judges tiny out=runs/judges
    genloop run measure_judges tiny out=runs/measured
    genloop run measure_judges vl_rewardbench out=runs/measured runs=[runs/original,runs/smaller] original=qwen
    genloop report runs/measured --out page

Reads   runs of evaluate_judges over one file of pairs, and the judges that they name; folders of adapters.
Writes  RUN/rows/*.jsonl, one line a judge: parameters, bytes by dtype, of files, of adapters, operations and
        seconds of judged pairs, peak memory. When all units are done RUN/summary.json and RUN/table.md (also
        printed): medians and 95th percentiles, accuracy, and the share of the original's that is kept, raw and
        corrected for chance, with intervals paired by pair of answers. pass: the lower bound reaches `goal`;
        undefined: the original itself is not above chance. RUN/weights.svg, flops.svg, seconds.svg (and .png):
        accuracy against cost; RUN/report, the page.
Resume  the same command; a judge that was measured is not measured again. Use one worker: others on the same
        machine would be measured with it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from ckpts.resolve import resolve
from genloop import terminal
from genloop.bounds import CountOrNone, Repeats, Share
from genloop.config import LAUNCH, ComputeKeys, IndependentConfig
from genloop.distributed import World, choose_device
from genloop.job import loading, note, run
from genloop.ledger import Ledger, count, plan_units, rows_of_units
from genloop.reading import regular_file
from genloop.registry import did_you_mean
from genloop.rewards.responses.settings import Reading, ResponseJudgeSettings
from genloop.stats.retention import Criterion

if TYPE_CHECKING:
    from genloop.data.responses.pair import ResponsePairs
    from genloop.runs.judged import JudgedPair

KIND = "independent"


class Config(ComputeKeys, IndependentConfig):
    runs: Annotated[list[Path], LAUNCH] = Field(
        min_length=1, description="runs of evaluate_judges, fingerprinted by their rows"
    )
    original: str = Field(description="name of the judge that the others were made from")
    reading: Reading | None = Field(None, description="how judges were asked; null: the first way of the original")
    adapters: Annotated[dict[str, Path], LAUNCH] = Field(
        {}, description="{judge: folder of the adapters that it was recovered with}, fingerprinted by content"
    )
    criterion: Annotated[Criterion, LAUNCH] = Field(
        "chance", description="what has to be kept: the accuracy above 1/2, or raw accuracy, which a coin mostly keeps"
    )
    goal: Annotated[Share, LAUNCH] = Field(0.7, description="share that has to be kept")
    warmup: CountOrNone = Field(3, description="pairs judged before any is timed")
    repeats: Repeats = Field(20, description="pairs that are timed")
    flops_pairs: Repeats = Field(4, description="pairs whose operations are counted")
    unit_size: Annotated[int, Field(ge=1, le=1)] = Field(1, description="judges in one unit of work")


@dataclass(frozen=True)
class Checked:
    """The judges by name, the original first; their rows, the pairs, and how they were asked."""

    judges: Mapping[str, ResponseJudgeSettings]
    rows: "Mapping[str, Sequence[JudgedPair]]"
    pairs: "ResponsePairs"
    reading: Reading


def check(config: Config) -> Checked:
    """Runs, judges and pairs, before anything is loaded or written."""
    from genloop.evals.vl_rewardbench.judged_runs import open_judged_runs
    from genloop.stats.judges.compression import shared_rows

    found = open_judged_runs(config.runs)
    if config.original not in found.judges:
        hint = did_you_mean(config.original, found.judges)
        raise ValueError(f"original: no judge {config.original!r} in the runs{hint} ({', '.join(found.judges)})")
    known = found.rows[config.original][0].readings
    reading: Any = config.reading or known[0]
    if reading not in known:
        raise ValueError(f"reading: {config.original} was not asked for {reading!r} ({', '.join(known)})")
    names = [name for name, rows in found.rows.items() if reading in rows[0].readings]
    names = [config.original, *(name for name in names if name != config.original)]
    for name, folder in config.adapters.items():
        if name not in names:
            raise ValueError(f"adapters: no judge {name!r}{did_you_mean(name, names)} ({', '.join(names)})")
        regular_file(folder / "adapter_model.safetensors")
    for name in names:
        if found.judges[name].kind == "remote":
            raise ValueError(f"runs: judge {name} is a server, which cannot be measured from here")
        found.judges[name].check(resolve)
    rows = shared_rows({name: found.rows[name] for name in names}, config.original)
    return Checked({name: found.judges[name] for name in names}, rows, found.pairs, reading)


def inputs(config: Config, checked: Checked) -> dict[str, Path | str]:
    """The runs' rows and the judges' files."""
    found: dict[str, Path | str] = {f"runs.{number}": path / "rows" for number, path in enumerate(config.runs)}
    found |= {f"adapters.{name}": path for name, path in config.adapters.items()}
    for name, settings in checked.judges.items():
        found |= settings.inputs(resolve, f"judges.{name}")
    return found


def main(config: Config, world: World, checked: Checked) -> None:
    import torch

    torch.set_num_threads(config.threads)
    names = list(checked.judges)
    units = plan_units(len(names), config.unit_size)
    with Ledger.of(config, units, world) as ledger:
        for unit in ledger.claims():
            with ledger.working(unit), note(f"judge {names[unit.start]}"):
                world.check_stop()
                row = _measured(config, checked, names[unit.start], choose_device(config.device, world))
                ledger.advance(1)
                ledger.complete(unit, [row])
    if count(config.out, len(units)).done == len(units):
        _conclude(config, checked)


def _measured(config: Config, checked: Checked, name: str, device: str) -> dict[str, Any]:
    """The row of one judge. It is loaded twice: libraries that the first time loads are not what it takes."""
    from genloop.models.common.measure import count_flops, peak_memory, size_of, time_calls

    settings, calls = checked.judges[name], config.flops_pairs + config.warmup + config.repeats
    work = cycle([partial(_judge, config, checked, name, number) for number in _spread(checked.rows[name], calls)])

    def costs(judge: Any) -> dict[str, Any]:
        next(work)(judge)
        flops = [count_flops(partial(next(work), judge)) for _ in range(config.flops_pairs)]
        seconds = time_calls(lambda: next(work)(judge), device, warmup=config.warmup, repeats=config.repeats)
        size = size_of(judge.network) if hasattr(judge, "network") else None
        told = {"parameters": size and size.parameters, "bytes_by_dtype": size.bytes_by_dtype if size else {}}
        return told | {"flops": sum(flops) / len(flops), "seconds": seconds}

    found = costs(_load(settings, device))
    with peak_memory(device) as peak:
        next(work)(_load(settings, device))
    return {
        "judge": name,
        "what": settings.fingerprint(resolve),
        **_files(config, settings, name),
        **found,
        "peak_memory": peak.num_bytes,
        "device": device,
        "threads": config.threads,
    }


def _load(settings: ResponseJudgeSettings, device: str) -> Any:
    with loading():
        return settings.maker.load(settings.options, resolve, device)


def _judge(config: Config, checked: Checked, name: str, number: int, judge: Any) -> None:
    """One pair, as `evaluate_judges` judges it."""
    import numpy as np

    from genloop.evals.vl_rewardbench.judging import Asking, judge_pairs
    from genloop.records import Writing
    from genloop.rewards.responses.wording import read_wording

    asking = Asking((checked.reading,), 1, Writing(0.0, 1.0, 256), read_wording(None), config.seed)
    judge_pairs(name, judge, checked.pairs, [number], np.zeros(len(checked.pairs), dtype=np.int64), asking)


def _spread(rows: "Sequence[JudgedPair]", most: int) -> list[int]:
    """Numbers of at most so many pairs, evenly spread."""
    size = min(most, len(rows))
    return [rows[place * len(rows) // size].number for place in range(size)]


def _files(config: Config, settings: ResponseJudgeSettings, name: str) -> dict[str, Any]:
    """What lies on disk: bytes of weights and adapters, what was done to the folder."""
    from genloop.checkpoint import read_file_shapes
    from genloop.models.common.measure import adapter_file, weight_bytes
    from genloop.models.smaller.write import NOTES
    from genloop.reading import read_object_or_empty

    folder = next(iter(settings.inputs(resolve, name).values()), None)
    adapter = config.adapters.get(name)
    told: dict[str, Any] = {"checkpoint_bytes": None, "compression": None, "adapter_bytes": None, "trained": None}
    if folder is not None:
        told["checkpoint_bytes"] = weight_bytes(folder)
        told["compression"] = read_object_or_empty(folder / NOTES) or None
    if adapter is not None:
        shapes = read_file_shapes(adapter_file(adapter))
        told["adapter_bytes"] = adapter_file(adapter).stat().st_size
        told["trained"] = sum(map(math.prod, shapes.values()))
    return told


def _conclude(config: Config, checked: Checked) -> None:
    """Write and print the numbers; workers that end together write the same bytes."""
    from genloop.report.compression.tables import figures, markdown
    from genloop.report.compression.write import write_compression
    from genloop.report.figures.canvas import write_figure
    from genloop.rundir import write_atomic, write_json
    from genloop.runs.measured import MeasuredJudge
    from genloop.stats.judges.compression import summarize_compression

    units = plan_units(len(checked.judges), config.unit_size)
    measured = rows_of_units(config.out, units, MeasuredJudge.from_json)
    asked: dict[str, Any] = {"criterion": config.criterion, "goal": config.goal, "seed": config.seed}
    found = summarize_compression(measured, checked.rows, config.original, checked.reading, **asked)
    write_json(config.out / "summary.json", found)
    text = markdown(found)
    write_atomic(config.out / "table.md", text.encode())
    for name, drawing in figures(found).items():
        write_figure(config.out / name, drawing)
    write_compression(config.out, config.out / "report")
    terminal.out_markdown(text)


if __name__ == "__main__":
    run(main, Config)
