"""Make preference pairs: of generated images, reopened ones, or a published file.

    genloop run build_pairs tiny out=runs/pairs
    genloop run build_pairs shapes source=runs/pool out=runs/pairs --procs 2
    genloop run build_pairs shapes_localised source=runs/pool out=runs/pairs-localised --procs 2
    genloop run build_pairs published published=data/dpo.jsonl images=data out=runs/pairs-published

Reads   a finished run of `generate`: tokens and scores of all candidates stand in its rows. Or a file `published`
        of JSON lines {prompt, chosen, rejected}, whose images are encoded. A source with a sentence of the prompt
        files in `held_out` is refused.
Writes  RUN/rows/*.jsonl, one line a prompt: its pairs. When all units are done RUN/shards/train and RUN/shards/val
        (schema: genloop/data/pairs/pair.py) without duplicates, split by sentence; RUN/summary.json and
        RUN/datasheet.md.
Resume  the same command; finished units are kept, any number of workers may join or leave. A pair depends on the
        config, the source and its prompt alone.

kind=plain pairs finished images of a prompt; kind=localised reopens each image at one of its own steps, draws the
rest again and pairs both. Which one is better says a judge (scores of the source, or `judge`, asked here), the
verdict (`verdicts`, a run of evaluate about the source's images, or detector and colours, asked here), or both.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field

from ckpts.resolve import resolve
from geneval.settings import (
    ExactEvaluatorKeys,
    build_evaluator,
    check_evaluator,
    check_prompts_of,
    evaluator_inputs,
)
from genloop.bounds import Count, Share, Weight, Width
from genloop.config import LAUNCH, DeviceKeys, HeldOutKeys, IndependentConfig, InputPath
from genloop.data.pairs.pair import CodeSpace
from genloop.data.pairs.published import PublishedPair, PublishedPairing, read_published, sizes_of
from genloop.data.pairs.rules import Criterion, ReopenSettings, Rule, Signal
from genloop.data.pairs.selection import FoundPair, pairs_of, select, split_pairs, write_sets
from genloop.data.prompts import check_held_out
from genloop.distributed import World, choose_device
from genloop.hashing import sha256_tree
from genloop.job import plain, run
from genloop.ledger import Ledger, count, plan_units, rows_of_units
from genloop.meanings import GENERATED, SLOTS, TOKENIZER, VAL_SHARE
from genloop.models.common.image_tokenizers import check_image_tokenizer, load_image_tokenizer
from genloop.planning import Footprint, Workload
from genloop.reading import json_object
from genloop.records import Prompt, unpack_tokens
from genloop.rewards.build import build_judge, check_judge, check_prompts
from genloop.rewards.settings import JudgeSettings
from genloop.rundir import RunFailed, read_run, write_atomic, write_json
from genloop.runs.evaluations import check_evaluation, read_evaluated
from genloop.runs.generated import GeneratedRun, image_folder, read_generated_run
from genloop.runs.image_labels import ImageLabels
from genloop.runs.pairing import LocalisedPairing, Place, PlainPairing
from genloop.runs.pools import check_tokens
from genloop.sampling.build import build_generator, check_same_weights, read_generator, recorded_hash
from genloop.sampling.settings import GeneratorKeys

if TYPE_CHECKING:
    pass

KIND = "independent"
Pairing = PublishedPairing | PlainPairing | LocalisedPairing
TOKENIZER_KEY = "generator.options.tokenizer"


class Config(ExactEvaluatorKeys, HeldOutKeys, DeviceKeys, IndependentConfig):
    source: Annotated[Path | None, LAUNCH] = Field(None, description=GENERATED)
    published: InputPath | None = Field(
        None, description="or a file of JSON lines {prompt, chosen: path, rejected: path}"
    )
    images: Annotated[Path | None, LAUNCH] = Field(
        None, description="of `published`: folder of its images, fingerprinted by sizes; null: that of the file"
    )
    tokenizer: Annotated[str, LAUNCH] = Field("magvitv2", description=f"of `published`; {TOKENIZER}")
    resolution: Width = Field(256, description="of `published`: pixels on a side of its images, resized and cropped")
    kind: Literal["plain", "localised"] = Field("plain", description="whole images, or images reopened on their way")
    signal: Signal = Field("judge", description="what says which image is better; both: the verdict and the score")
    rule: Rule = Field("best_worst", description="kind=plain: best with worst and so on, or all beyond `min_margin`")
    min_margin: Weight = Field(0.0, description="scores of a pair differ by more")
    max_pairs: Count = Field(4, description="pairs of one prompt, at most")
    balance: bool = Field(False, description="as many pairs of every task as the task with the fewest has")
    judge: JudgeSettings | None = Field(None, description="asked for the outcome; null: scores that the source records")
    verdicts: Annotated[Path | None, LAUNCH] = Field(
        None, description="run of evaluate about the source's images; null: detector and colors are asked"
    )
    with_verdicts: bool = Field(False, description="signal=judge: ask for verdicts too, to tell how right pairs are")
    reopen: ReopenSettings = ReopenSettings()
    val_share: Share = Field(0.1, lt=1, description=VAL_SHARE)
    pairs_per_shard: Count = Field(4096, description="pairs in one shard")
    unit_size: Count = Field(32, description="prompts in one unit of work")
    slots: Annotated[Count, LAUNCH] = Field(64, description=SLOTS)

    @property
    def asks_judge(self) -> bool:
        """Whether a judge looks at images here."""
        return self.source is not None and self.judge is not None and self.signal != "verdict"

    @property
    def asks_detector(self) -> bool:
        """Whether verdicts are made here."""
        wanted = self.signal != "judge" or self.with_verdicts
        return self.source is not None and self.verdicts is None and wanted


@dataclass(frozen=True)
class Checked:
    """What pairs are made of, by prompts; `made` is what the source was drawn with, `rated` verdicts by image."""

    prompts: list[Prompt]
    code_space: CodeSpace
    source: GeneratedRun | None = None
    made: GeneratorKeys | None = None
    rated: dict[Place, bool] | None = None
    published: Sequence[PublishedPair] = ()


def check(config: Config) -> Checked:
    """The source, names, checkpoint headers and held-out prompts, before anything is loaded or written."""
    if (config.source is None) == (config.published is None):
        raise ValueError("source: name a run of generate, or a file in `published`, and not both")
    checked = _check_source(config) if config.source else _check_published(config)
    check_held_out(checked.prompts, config.held_out)
    return checked


def _check_published(config: Config) -> Checked:
    if config.kind != "plain" or config.judge is not None or config.verdicts is not None:
        raise ValueError("published: its pairs are given; leave out kind, judge and verdicts")
    pairs = _read_published(config)
    folder = resolve(config.tokenizer)
    space = CodeSpace(check_image_tokenizer(folder), sha256_tree(folder))
    return Checked([Prompt(i, pair.prompt) for i, pair in enumerate(pairs)], space, published=pairs)


def _read_published(config: Config) -> list[PublishedPair]:
    path = config.published
    return read_published(path, config.images or path.parent, limit=config.limit) if path else []


def _check_source(config: Config) -> Checked:
    assert config.source is not None
    source = read_generated_run(config.source, config.limit)
    made = read_generator(source.folder)
    tokenizer = recorded_hash(source.inputs, TOKENIZER_KEY)
    if tokenizer is None:
        raise ValueError(f"source: {config.source} was drawn by {made.generator.kind!r}, which makes no image tokens")
    only = None if config.kind == "localised" else {TOKENIZER_KEY}
    check_same_weights(made, source.inputs, config.source, resolve, only=only)
    space = CodeSpace(check_image_tokenizer(resolve(made.generator.options.tokenizer)), tokenizer)
    check_tokens([row for prompt in source.prompts for row in source.rows[prompt.index]], space.num_codes)
    _check_labels(config, source)
    if config.kind == "localised":
        if config.verdicts is not None:
            raise ValueError("verdicts: say nothing about what is drawn here; leave them out, the detector is asked")
        config.reopen.check(made.sampling.num_steps)
    return Checked(source.prompts, space, source, made, _read_verdicts(config, source))


def _check_labels(config: Config, source: GeneratedRun) -> None:
    """Whoever says which image is better can say it."""
    known = check_evaluator(config, resolve)
    if config.asks_detector:
        check_prompts_of(source.folder, source.prompts, config, known)
    if config.asks_judge and config.judge is not None:
        check_judge(config.judge, resolve, ["outcome"])
        check_prompts(config.judge, source.prompts)
    elif config.signal != "verdict":
        if config.kind == "localised":
            raise ValueError(f"judge: signal={config.signal} needs one to judge what is drawn here; name it")
        rows = (row for prompt in source.prompts for row in source.rows[prompt.index])
        if not any(one.p_yes.get("outcome") is not None for row in rows for one in row.candidates):
            raise ValueError(f"judge: {config.source} records no score of an outcome; name a judge, or signal=verdict")


def _read_verdicts(config: Config, source: GeneratedRun) -> dict[Place, bool] | None:
    """Of a run of evaluate about the images of the source."""
    if config.verdicts is None:
        return None
    check_evaluation(config.verdicts)
    judged = (read_run(config.verdicts) or {}).get("inputs", {}).get("images")
    if judged != sha256_tree(image_folder(source.folder)):
        raise ValueError(f"verdicts: {config.verdicts} is about other images than those of {config.source}")
    return {(row.prompt_index, row.sample): row.correct for row in read_evaluated(config.verdicts)}


def inputs(config: Config, checked: Checked) -> dict[str, Path | str]:
    """The source's digest and rows, verdicts, whoever is asked; of published pairs images and tokenizer."""
    found: dict[str, Path | str] = {**config.held_out_inputs()}
    if checked.source is None:
        return found | {"images": sizes_of(checked.published), "tokenizer": resolve(config.tokenizer)}
    found |= {"source": checked.source.digest, "source.rows": checked.source.folder / "rows"}
    if config.verdicts is not None:
        found["verdicts"] = config.verdicts / "rows"
    if config.asks_detector:
        found |= evaluator_inputs(config, resolve)
    if config.asks_judge and config.judge is not None:
        found |= config.judge.inputs(resolve, "judge")
    return found


def work(config: Config) -> Workload:
    """The prompts of the source, or the lines of the file."""
    source = config.source and read_generated_run(config.source, config.limit)
    items = len(source.prompts if source else _read_published(config))
    return Workload(items, items)


def footprint(config: Config, checked: Checked, *, device: str, ranks: int) -> Footprint:
    """A batch of images: two steps of drawing them again, decoding, what is asked about them; or encoding one pair."""
    from genloop.models.common.footprint import rehearsal

    with rehearsal(device) as tracker:
        with tracker.part("generator, judge and detector" if config.source else "image tokenizer"):
            pairing = _pairing(config, checked, World(), "meta")
        if isinstance(pairing, PublishedPairing):
            pairing.pair_up(checked.prompts[:1])
        elif pairing.label:
            rows = [(prompt, row) for prompt in checked.prompts for row in pairing.source.rows[prompt.index]]
            prompts, images = zip(*rows[: config.slots], strict=True)
            codes = np.stack([unpack_tokens(row.tokens) for row in images])
            if isinstance(pairing, LocalisedPairing):
                steps = np.stack([unpack_tokens(row.revealed_at) for row in images])
                pairing.redraw.rehearse(prompts, codes, steps < config.reopen.first)
            pairing.label(prompts, codes)
    return Footprint(tracker.parts, tracker.peak - sum(tracker.parts.values()))


def main(config: Config, world: World, checked: Checked) -> None:
    units = plan_units(len(checked.prompts), config.unit_size)
    with Ledger.of(config, units, world) as ledger:
        pairing: Pairing | None = None
        for unit in ledger.claims():
            device = choose_device(config.device, world)
            pairing = pairing or _pairing(config, checked, world, device)  # a finished run loads nothing
            with ledger.working(unit):
                found = pairing.pair_up(checked.prompts[unit.start : unit.stop])
                ledger.complete(unit, [tally.row() for tally in found])
                ledger.advance(len(unit))
    if count(config.out, len(units)).done == len(units):
        _conclude(config, checked, rows_of_units(config.out, units, json_object), ledger.staging)


def _pairing(config: Config, checked: Checked, world: World, device: str) -> Pairing:
    """What makes the pairs; it loads what it needs."""
    from genloop.sampling.maskgit.encode import square_encoder
    from genloop.sampling.maskgit.reopen import Reopening

    if checked.source is None or checked.made is None:
        encode = square_encoder(config.tokenizer, resolve, config.resolution, device, before=world.check_stop)
        return PublishedPairing(checked.published, encode)
    criterion = Criterion(config.signal, config.min_margin)
    if config.kind == "plain":
        looks = _labels(config, checked.made, world, device) if config.asks_judge or config.asks_detector else None
        return PlainPairing(checked.source, criterion, config.rule, config.max_pairs, config.seed, looks, checked.rated)
    sampler: Any = build_generator(checked.made, resolve, device, before_step=world.step)
    return LocalisedPairing(
        checked.source,
        criterion,
        most=config.max_pairs,
        seed=config.seed,
        label=_labels(config, checked.made, world, device, sampler.tokenizer),
        redraw=Reopening(sampler, config.seed, config.reopen.steps, config.slots),
        first=config.reopen.first,
        last=config.reopen.last,
        continuations=config.reopen.continuations,
        num_steps=sampler.num_steps,
    )


def _labels(config: Config, made: GeneratorKeys, world: World, device: str, tokenizer: Any = None) -> ImageLabels:
    """Asks judge and detector about images, as far as the config says so; `tokenizer`: one that is loaded already."""
    from geneval.labels import Labeller

    options = made.generator.options
    tokenizer = tokenizer or load_image_tokenizer(
        resolve(options.tokenizer), options.tokenizer_class, device=device, dtype=options.tokenizer_dtype
    )
    judge = build_judge(config.judge, resolve, device) if config.asks_judge and config.judge else None
    labeller = Labeller(build_evaluator(config, resolve, device)) if config.asks_detector else None
    verdicts = None if labeller is None else labeller.verdicts
    return ImageLabels(tokenizer, judge, verdicts, config.slots, world.step, device)


def _conclude(config: Config, checked: Checked, rows: Sequence[dict[str, Any]], staging: Path) -> None:
    """The sets, counts and datasheet; workers that end together write the same bytes."""
    from genloop.report.pairs.datasheet import datasheet, summarize

    selection = select(map(FoundPair.of, pairs_of(rows)), config.seed, is_balanced=config.balance)
    if not selection.kept:
        raise RunFailed(f"{config.out}: no image of any prompt is preferred to another; draw more, or lower min_margin")
    sides = split_pairs(selection.kept, config.seed, config.val_share)
    found = {side: pairs_of(rows, {pair.key for pair in pairs}) for side, pairs in sides.items()}
    folder, size = config.out / "shards", config.pairs_per_shard
    shards = write_sets(folder, found, checked.code_space, per_shard=size, staging=staging)
    summary = summarize(rows, selection, sides)
    write_atomic(config.out / "datasheet.md", datasheet(summary, _about(config, checked)).encode())
    write_json(config.out / "summary.json", summary | {"shards": shards})


def _about(config: Config, checked: Checked) -> dict[str, list[str]]:
    """What the datasheet says beside its counts."""
    from genloop.report.pairs import datasheet

    codes = datasheet.about_codes(checked.code_space)
    split = {"Split": datasheet.about_split(config.seed, config.val_share, config.held_out)}
    if checked.source is None:
        file = f"The pairs of `{config.published}`, images resized (bicubic) and cropped to {config.resolution} pixels."
        return {"Source": [file, codes]} | split
    made = {"Source": [f"A run of generate with the fingerprint `{checked.source.digest}`.", codes]}
    keys = ["kind", "signal", "min_margin", "max_pairs", "balance"]
    keys += ["reopen"] if config.kind == "localised" else ["rule"]
    keys += ["judge"] if config.asks_judge else []
    keys += ["detector", "colors", "options"] if config.asks_detector else []
    known = plain(config)
    return made | {"Pairs": [f"- {key}: `{json.dumps(known[key])}`" for key in keys]} | split


if __name__ == "__main__":
    run(main, Config)
