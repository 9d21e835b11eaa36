"""Judge the judges: which of two answers about an image do they prefer?

    genloop run evaluate_judges tiny out=runs/judges
    genloop run evaluate_judges vl_rewardbench out=runs/judges data.path=VL-RewardBench \\
        judges.qwen.options.checkpoint=Qwen2.5-VL-7B-Instruct judges.llava.options.checkpoint=llava-onevision
    genloop report runs/judges

Reads   pairs of answers: VL-RewardBench (a folder of `datasets` or parquet files, JSONL with images by path),
        Multimodal RewardBench 2, or any table by the names of its columns; the checkpoints of the judges.
Writes  RUN/rows/*.jsonl, one line a judge and pair: what it prefers by each reading that it has, and every verdict
        that it wrote with what four parsers read in it. When all units are done RUN/summary.json and RUN/table.md
        (also printed): macro and overall accuracy with intervals over images, official and strict, share of
        verdicts that were read, bias of position and of length, consistency, calibration, and paired differences
        to `base`, beside an arm that always takes the longer answer. `genloop report RUN` draws the page.
Resume  the same command; finished units are kept, any number of workers may join or leave. A row depends on its
        judge and its pair alone, but for verdicts that are written with chats_per_batch above 1, or by a server.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from ckpts.resolve import resolve
from genloop import terminal
from genloop.bounds import Count, Repeats, Share, Weight
from genloop.config import ComputeKeys, IndependentConfig, InputPath, Settings
from genloop.data.responses.pair import ResponsePairs
from genloop.data.responses.read import ResponseData, open_pairs
from genloop.distributed import World, choose_device
from genloop.job import loading, run
from genloop.ledger import count, rows_of_units
from genloop.meanings import BASE
from genloop.named import work_by_name
from genloop.records import Unit, Writing
from genloop.registry import did_you_mean
from genloop.rewards.responses.settings import Reading, ResponseJudgeSettings
from genloop.rewards.responses.wording import read_wording

KIND = "independent"


class Verdicts(Settings):
    """How verdicts in words are written; the defaults are VL-RewardBench's, with half the trials."""

    trials: Repeats = Field(5, description="verdicts a pair, each with its own seed, in orders that alternate")
    temperature: Weight = Field(0.2, description="0: the most probable token")
    top_p: Share = Field(0.2, gt=0, description="mass of the tokens that are drawn from")
    max_new_tokens: Count = Field(1024, description="of one verdict")
    question: InputPath | None = Field(
        None, description="file of another question with {query}, {first} and {second} in it; null: ours"
    )


class Config(ComputeKeys, IndependentConfig):
    data: ResponseData = Field(description="pairs of answers, of which people prefer one")
    judges: dict[str, ResponseJudgeSettings] = Field(min_length=1, description="{name: judge}")
    readings: list[Reading] = Field(
        ["verdict", "likelihood", "pmi", "score", "generated"],
        min_length=1,
        description="ways to ask; of each judge those that it has",
    )
    verdicts: Verdicts = Verdicts()
    base: str | None = Field(None, description=BASE)
    base_reading: Reading | None = Field(None, description="of `base`; null: the first that it has")


@dataclass(frozen=True)
class Checked:
    """The pairs, which of them are about one image, how each judge is asked, and the arm to compare with."""

    pairs: ResponsePairs
    clusters: np.ndarray
    readings: Mapping[str, tuple[Reading, ...]]
    wording: str
    base: tuple[str, Reading]


def check(config: Config) -> Checked:
    """Judges, pairs and question, before anything is loaded or written."""
    pairs = open_pairs(config.data)
    readings = {name: _readings(config, name, pairs) for name in config.judges}
    base = next(iter(config.judges)) if config.base is None else config.base
    if base not in config.judges:
        raise ValueError(f"base: no judge {base!r}{did_you_mean(base, config.judges)} ({', '.join(config.judges)})")
    reading = config.base_reading or readings[base][0]
    if reading not in readings[base]:
        raise ValueError(f"base_reading: {base} is not asked for {reading!r} ({', '.join(readings[base])})")
    wording = read_wording(config.verdicts.question)
    return Checked(pairs, pairs.clusters(), readings, wording, (base, reading))


def _readings(config: Config, name: str, pairs: ResponsePairs) -> tuple[Reading, ...]:
    """How a judge is asked; ValueError when it has bad options, or no reading that is wanted and fits the pairs."""
    settings = config.judges[name]
    try:
        settings.check(resolve)
    except (ValueError, FileNotFoundError) as error:
        raise type(error)(f"judges.{name}: {error}") from None
    is_drawn = any(pair.is_drawn for pair in pairs)
    wanted = [reading for reading in config.readings if reading == "score" or not is_drawn]
    found = tuple(reading for reading in wanted if reading in settings.maker.readings)
    if not found:
        known, why = ", ".join(settings.maker.readings), "; answers that are images need score" if is_drawn else ""
        raise ValueError(f"readings: judge {name} of kind {settings.kind!r} has none of them ({known}){why}")
    return found


def inputs(config: Config, checked: Checked) -> dict[str, Path | str]:
    """The judges' files and the images."""
    found: dict[str, Path | str] = {"data.image_bytes": checked.pairs.images_sha()}
    for name, settings in config.judges.items():
        found |= settings.inputs(resolve, f"judges.{name}")
    return found


def main(config: Config, world: World, checked: Checked) -> None:
    import torch

    torch.set_num_threads(config.threads)
    number = len(checked.pairs)
    units = work_by_name(
        config,
        world,
        list(config.judges),
        min(number, config.limit or number),
        load=lambda name: _load(config, name, world),
        rows_of=partial(_judged, config, checked),
        noun="judge",
    )
    if count(config.out, len(units)).done == len(units):
        _conclude(config, checked, units)


def _judged(config: Config, checked: Checked, name: str, judge: Any, places: list[int]) -> list[dict[str, Any]]:
    from genloop.evals.vl_rewardbench.judging import Asking, judge_pairs

    how = config.verdicts
    writing = Writing(how.temperature, how.top_p, how.max_new_tokens)
    asking = Asking(checked.readings[name], how.trials, writing, checked.wording, config.seed)
    return judge_pairs(name, judge, checked.pairs, places, checked.clusters, asking)


def _load(config: Config, name: str, world: World) -> Any:
    with loading():
        settings = config.judges[name]
        return settings.maker.load(settings.options, resolve, choose_device(config.device, world))


def _conclude(config: Config, checked: Checked, units: Sequence[Unit]) -> None:
    """Write and print the numbers; workers that end together write the same bytes."""
    from genloop.report.judges.tables import markdown
    from genloop.rundir import write_atomic, write_json
    from genloop.runs.judged import JudgedPair
    from genloop.stats.judges.pairs import arm_name, summarize

    rows = rows_of_units(config.out, units, JudgedPair.from_json)
    found = summarize(rows, arm_name(*checked.base), config.seed)
    found["left out"] = checked.pairs.left_out
    found["judges"] = {name: settings.fingerprint(resolve) for name, settings in config.judges.items()}
    text = markdown(found)
    write_json(config.out / "summary.json", found)
    write_atomic(config.out / "table.md", text.encode())
    terminal.out_markdown(text)


if __name__ == "__main__":
    run(main, Config)
