"""Compute best-of-k for every k from one pool of candidates.

    genloop run generate tiny out=runs/pool search.strategy=best_of_n search.n=8
    genloop run scaling_curve shapes source=runs/pool out=runs/curve
    genloop run scaling_curve shapes source=runs/pool out=runs/curve judges.oracle.kind=shapes_oracle

Reads   a finished run of `generate` with strategy none or best_of_n; its image tokenizer; the judges named here.
Writes  RUN/rows/*.jsonl, one line an image: which of its candidates are right, and every judge's scores. When all
        units are done RUN/curve.json, RUN/table.md (also printed), RUN/curve.svg and .png: score against k and
        cost, with 95 % bands, and the ceiling of a judge that is always right. Scores that the run recorded are a
        judge too.
Resume  the same command; finished units are kept, any number of workers may join or leave. With another `pool_by`
        or `max_k` nothing is judged again.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from pydantic import Field

from ckpts.resolve import resolve
from geneval.settings import EvaluatorKeys, build_evaluator, check_evaluator, evaluator_inputs
from genloop import terminal
from genloop.bounds import Count
from genloop.config import LAUNCH, ComputeKeys, IndependentConfig, read_yaml
from genloop.distributed import World, choose_device
from genloop.job import note, run
from genloop.ledger import Ledger, count, plan_units
from genloop.meanings import GENERATED, TOKENIZER
from genloop.rewards.settings import JudgeSettings
from genloop.sampling.build import read_generator
from genloop.stats.scaling import CEILING, Grouping, pools_of

if TYPE_CHECKING:
    from geneval.judge import VerdictJudge
    from genloop.protocols import ImageTokenizer, Judge
    from genloop.records import Prompt
    from genloop.runs.rows import GeneratedRow

KIND = "independent"


class Config(EvaluatorKeys, ComputeKeys, IndependentConfig):
    source: Annotated[Path, LAUNCH] = Field(description=GENERATED)
    tokenizer: Annotated[str | None, LAUNCH] = Field(None, description=f"{TOKENIZER}; null: that of the run")
    judges: dict[str, JudgeSettings] = Field({}, description="judges to ask for the outcome, by the name to show")
    pool_by: Annotated[Grouping, LAUNCH] = Field(
        "prompt", description="a pool is all candidates of a prompt, or those of an image"
    )
    max_k: Annotated[Count | None, LAUNCH] = Field(
        None, description="the largest k; null: as many as the smallest pool has"
    )
    unit_size: Count = Field(32, description="images in one unit of work")
    images_per_batch: Annotated[Count, LAUNCH] = Field(256, description="images that are handed on at once")


class Parts(NamedTuple):
    """What turns candidates into verdicts and scores."""

    device: str
    tokenizer: "ImageTokenizer"
    verdicts: "VerdictJudge"
    judges: dict[str, "Judge"]


@dataclass(frozen=True)
class Checked:
    """The run's rows, their prompts by index, the folder of the image tokenizer, the name of the recorded judge."""

    rows: "Sequence[GeneratedRow]"
    prompts: "Mapping[int, Prompt]"
    tokenizer: Path
    recorded: str


def check(config: Config) -> Checked:
    """The run, names and checkpoint headers, before anything is loaded or written."""
    from genloop.models.common.image_tokenizers import check_image_tokenizer
    from genloop.rewards.build import check_judge, judge_classes
    from genloop.runs.pools import check_tokens, read_pool_rows, read_prompts_of, recorded_judge

    rows = read_pool_rows(config.source)[: config.limit]
    known, recorded = set(check_evaluator(config, resolve)), _recorded_name(config.source)
    for name, settings in config.judges.items():
        if name == CEILING or (name == recorded and recorded_judge(rows[0])):
            raise ValueError(f"judges.{name}: that name is taken by scores of the run; use another one")
        check_judge(settings, resolve, ["outcome"])
        known &= set(judge_classes(settings) or known)
    prompts = read_prompts_of(config.source, rows, classes=known)
    tokenizer = resolve(config.tokenizer or read_generator(config.source).generator.options.tokenizer)
    check_tokens(rows, check_image_tokenizer(tokenizer))
    smallest = min(
        sum(len(row.candidates) for row in pool)
        for pool in pools_of(rows, config.pool_by, lambda row: (row.prompt_index, row.sample))
    )
    if config.max_k is not None and config.max_k > smallest:
        raise ValueError(f"max_k: found {config.max_k}, but the smallest pool has {smallest} candidates")
    return Checked(rows, prompts, tokenizer, recorded)


def inputs(config: Config, checked: Checked) -> dict[str, Path]:
    """The run's rows, the tokenizer and the judges' files, whose content enters the fingerprint."""
    found = {"source": config.source / "rows", "tokenizer": checked.tokenizer} | evaluator_inputs(config, resolve)
    for name, settings in config.judges.items():
        found |= settings.inputs(resolve, f"judges.{name}")
    return found


def main(config: Config, world: World, checked: Checked) -> None:
    rows = checked.rows
    units = plan_units(len(rows), config.unit_size)
    with Ledger.of(config, units, world) as ledger:
        parts: Parts | None = None
        for unit in ledger.claims():
            parts = parts or _load(config, checked.tokenizer, world)  # a finished run loads nothing
            with ledger.working(unit):
                found: list[dict[str, Any]] = []
                for batch in _batches(rows[unit.start : unit.stop], config.images_per_batch):
                    world.check_stop()
                    with note("prompts " + ", ".join(f"{row.prompt_index} {row.prompt!r}" for row in batch)):
                        found += _judge(batch, checked.prompts, parts, checked.recorded)
                    ledger.advance(len(batch))
                ledger.complete(unit, found)
    if count(config.out, len(units)).done == len(units):
        _conclude(config)


def _recorded_name(run: Path) -> str:
    """What to call the judge whose scores the run recorded: its kind."""
    made = read_yaml(run / "config.yaml")
    return str(made.get("judge", {}).get("kind") or made.get("search", {}).get("judge") or "recorded")


def _load(config: Config, tokenizer: Path, world: World) -> Parts:
    import torch

    from geneval.judge import VerdictJudge
    from genloop.models.common.image_tokenizers import load_image_tokenizer
    from genloop.rewards.build import build_judge

    torch.set_num_threads(config.threads)
    device = choose_device(config.device, world)
    return Parts(
        device=device,
        tokenizer=load_image_tokenizer(tokenizer, device=device),
        verdicts=VerdictJudge(build_evaluator(config, resolve, device)),
        judges={name: build_judge(settings, resolve, device) for name, settings in config.judges.items()},
    )


def _batches(rows: Sequence["GeneratedRow"], num_candidates: int) -> Iterator[Sequence["GeneratedRow"]]:
    """Rows with about so many candidates together, one row at least."""
    size = max(1, num_candidates // max(len(row.candidates) for row in rows))
    yield from (rows[start : start + size] for start in range(0, len(rows), size))


def _judge(
    rows: Sequence["GeneratedRow"], prompts: "Mapping[int, Prompt]", parts: Parts, recorded: str
) -> Iterator[dict[str, Any]]:
    """Decode all candidates of some rows, ask the detector and the judges about them -> a row each."""
    import numpy as np
    import torch

    from genloop.runs.pools import recorded_judge, scored_row

    tokens = np.stack([candidate.unpacked() for row in rows for candidate in row.candidates])
    asked = [prompts[row.prompt_index] for row in rows for _ in row.candidates]
    images = parts.tokenizer.decode(torch.from_numpy(tokens).to(parts.device), rows[0].grid)  # (B, 3, H, W)
    correct = parts.verdicts.p_yes("outcome", asked, images).tolist()
    scores = {name: judge.p_yes("outcome", asked, images).tolist() for name, judge in parts.judges.items()}
    start = 0
    for row in rows:
        part = slice(start, start + len(row.candidates))
        prompt, start = prompts[row.prompt_index], part.stop
        mine = {name: values[part] for name, values in scores.items()}
        judging = {name: judge.flops(["outcome"], prompt) for name, judge in parts.judges.items()}
        if (known := recorded_judge(row)) is not None:
            mine, judging = {recorded: known[0], **mine}, {recorded: known[1], **judging}
        yield scored_row(row, prompt, correct[part], mine, judging)


def _conclude(config: Config) -> None:
    """Write the curve and print its table; workers that end together write the same bytes."""
    from genloop.ledger import read_rows
    from genloop.report.figures.canvas import write_figure
    from genloop.report.figures.scaling import scaling_svg
    from genloop.rundir import write_atomic, write_json
    from genloop.stats.scaling import scale, table

    scaling = scale(list(read_rows(config.out)), config.seed, grouping=config.pool_by, max_k=config.max_k)
    write_json(config.out / "curve.json", scaling.to_json())
    write_atomic(config.out / "table.md", table(scaling).encode())
    write_figure(config.out / "curve", scaling_svg(scaling))
    terminal.out_markdown(table(scaling))


if __name__ == "__main__":
    run(main, Config)
