"""Measure critics on held-out traces, and guided generation at equal compute.

    genloop run benchmark_irg tiny out=runs/irg-scores
    genloop run benchmark_irg tiny source=runs/irg out=runs/s \\
        critics="{rules: rules, tuned: {kind: qwen, options: {checkpoint: FOLDER}}}" base=tuned
    genloop run benchmark_irg tiny out=runs/s guided=runs/refine pool=runs/best_of_8 refined=runs/refined_prompts

Reads   a run of build_irg (or a folder of its shards), of which one split is used; the critics' checkpoints.
        `guided`, `pool` and `refined`: finished runs of generate on the same prompts, the first by
        search.strategy=refine, the second by best_of_n with many candidates, the third from refined prompts alone,
        all scored by one judge.
Writes  RUN/rows/*.jsonl, one line a critic and trace: what it said, what was right, what came of its actions. When
        all units are done RUN/summary.json, RUN/table.md (also printed) and RUN/index.html: macro-F1 and exact
        sets against the injected faults and the rules, severities, quoted numbers, format, false alarms, actions,
        composite by round, each with n and an interval over scenes; differences to `base` are paired.
Resume  the same command; finished units are kept, any number of workers may join or leave. A row depends on its
        critic and its trace alone, but for a chat model with chats_per_batch above 1, whose last bits may differ.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from ckpts.resolve import resolve
from genloop import terminal
from genloop.bounds import Repeats, Share
from genloop.config import ComputeKeys, IndependentConfig, InputPath
from genloop.data.irg.corpus import Corpus
from genloop.distributed import World, choose_device
from genloop.job import loading, run
from genloop.ledger import count, rows_of_units
from genloop.meanings import BASE, ROUNDS, TRACES
from genloop.named import work_by_name
from genloop.reading import json_object
from genloop.registry import did_you_mean
from genloop.rewards.critics.settings import CriticSettings, ImageCritic, build_critic

KIND = "independent"


class Config(ComputeKeys, IndependentConfig):
    source: InputPath = Field(description=TRACES)
    split: str = Field("test", description="only traces of this split")
    critics: dict[str, CriticSettings] = Field(
        {"rules": CriticSettings(kind="rules")}, min_length=1, description="{name: critic}"
    )
    base: str | None = Field(None, description=BASE)
    rounds: Repeats = Field(3, description=ROUNDS)
    accept: Share = Field(0.95, description="composite from which on an image is good enough")
    guided: InputPath | None = Field(None, description="finished run of generate by search.strategy=refine")
    pool: InputPath | None = Field(None, description="finished run of generate by search.strategy=best_of_n")
    refined: InputPath | None = Field(None, description="finished run of generate from refined prompts")


@dataclass(frozen=True)
class Checked:
    """The traces, and what guided generation came to."""

    corpus: Corpus
    guided: Mapping[str, Any] | None


def check(config: Config) -> Checked:
    """Critics, shards and runs, before anything is loaded or written."""
    if config.base is not None and config.base not in config.critics:
        raise ValueError(f"base: no critic {config.base!r}{did_you_mean(config.base, config.critics)}")
    for name, settings in config.critics.items():
        try:
            settings.check(resolve)
        except (ValueError, FileNotFoundError) as error:
            raise type(error)(f"critics.{name}: {error}") from None
    return Checked(Corpus(config.source, config.split), _guided(config))


def _guided(config: Config) -> Mapping[str, Any] | None:
    """The comparison of the runs; ValueError when one is missing or they do not fit."""
    if config.guided is None or config.pool is None:
        if config.guided or config.pool or config.refined:
            raise ValueError(f"{'pool' if config.guided else 'guided'}: needs a run too; they are compared")
        return None
    from genloop.evals.irg.guided import compare_guided, read_scored

    refined = read_scored(config.refined, "refined") if config.refined else None
    return compare_guided(read_scored(config.guided, "guided"), read_scored(config.pool, "pool"), refined, config.seed)


def inputs(config: Config, checked: Checked) -> dict[str, Path]:
    """The critics' files, whose content enters the fingerprint."""
    found = [settings.inputs(resolve, f"critics.{name}") for name, settings in config.critics.items()]
    return {key: path for part in found for key, path in part.items()}


def main(config: Config, world: World, checked: Checked) -> None:
    import torch

    from genloop.evals.irg.cases import run_cases

    torch.set_num_threads(config.threads)
    corpus = checked.corpus

    def rows_of(name: str, critic: ImageCritic, places: list[int]) -> list[dict[str, Any]]:
        return run_cases(name, critic, [corpus[place] for place in places], config.rounds, redraw)

    units = work_by_name(
        config,
        world,
        list(config.critics),
        min(len(corpus), config.limit or len(corpus)),
        load=lambda name: _load(config, name, world),
        rows_of=rows_of,
        noun="critic",
    )
    if count(config.out, len(units)).done == len(units):
        _conclude(config, checked, rows_of_units(config.out, units, json_object))


def redraw(scene: Any, side: int, attempt: int) -> Any:
    """The renderer draws what was asked for, with other textures: (side, side, 3) uint8."""
    from genloop.shapes.studio import render_scene

    return render_scene(scene.model_copy(update={"texture_seed": scene.texture_seed + attempt + 1}), side)


def _load(config: Config, name: str, world: World) -> ImageCritic:
    with loading():
        return build_critic(config.critics[name], resolve, choose_device(config.device, world))


def _conclude(config: Config, checked: Checked, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write and print the numbers; workers that end together write the same bytes."""
    from genloop.evals.irg.summary import summarize
    from genloop.report.irg.benchmark import markdown
    from genloop.report.irg.write import write_benchmark
    from genloop.rundir import write_json

    found = summarize(rows, config.base or next(iter(config.critics)), config.accept, config.seed)
    if checked.guided is not None:
        found["guided"] = checked.guided
    write_json(config.out / "summary.json", found)
    write_benchmark(config.out, config.out)
    terminal.out_markdown(markdown(found))


if __name__ == "__main__":
    run(main, Config)
