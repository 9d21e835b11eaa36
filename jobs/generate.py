"""Generate images for every prompt of a file, with or without a search.

    genloop run generate tiny out=runs/a
    genloop run generate tiny out=runs/b search.strategy=best_of_n search.n=8 --procs 2
    genloop run generate tiny out=runs/c search.strategy=best_of_n search.n=8 previews=judged
    genloop run generate showo_256 out=runs/r prompts=rewritten.jsonl text=detailed_caption
    genloop run generate tiny_shards out=runs/s
    genloop run generate inpaint_tiny out=runs/i
    genloop run generate extrapolate_tiny out=runs/e
    genloop run generate restyle_tiny out=runs/y mode.options.strength=0.5
    torchrun --nproc-per-node 8 -m jobs.generate showo_256 out=runs/d prompts=prompts.txt

Reads   a prompt file (and its GenEval metadata), the generator's checkpoints (of Show-o: also its image
        tokenizer); a judge's checkpoint when the strategy asks one; with mode.kind=inpaint, extrapolate or restyle
        folders of images and masks, the i-th file by name for line i.
Writes  RUN/images/00017/samples/0000.png + metadata.jsonl (the layout GenEval reads), or with format=shards one
        WebDataset shard a unit, RUN/shards/00002.tar: png, txt, and json with all that made the image;
        RUN/rows/*.jsonl, one line an image: tokens, scores and way of all candidates, the chosen one, its sha256,
        what it cost. Each PNG says in a text chunk how it was made. With previews=judged RUN/paths/00017/0000.png:
        a row a candidate, a column a step at which a judge was asked.
Resume  the same command; finished units are kept, any number of workers may join or leave. An image depends on the
        config and its prompt's line alone: not on workers, slots or restarts.

With text=detailed_caption the generator reads the rewritten prompt that a line of metadata holds beside the
original one; judges and evaluations go on seeing the original. Rows, PNGs and metadata.jsonl then hold both.

Inpainting keeps the tokens around the hole and can be searched as any image, and so can restyling, which draws a
diffusion model's image from a given one that is noised to mode.options.strength; extrapolation makes larger
images, mode.options.directions=[right,up], without a search.

An image with NaN, or a black one unless refuse_black=false, is a failure of its unit that names its prompt.
"""

import hashlib
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field

from ckpts.resolve import resolve
from genloop.bounds import Repeats
from genloop.config import ADDED, LAUNCH, IndependentConfig, PromptKeys
from genloop.data.given import GivenFolder
from genloop.data.prompts import Text, read_prompts
from genloop.distributed import World, choose_device
from genloop.in_order import InOrder
from genloop.job import note, run
from genloop.ledger import Ledger, plan_units
from genloop.planning import Footprint, Workload
from genloop.records import Choice, Prompt, Seed, Unit
from genloop.registry import load
from genloop.rewards.build import ABILITIES, build_judge, check_judge, check_prompts, judge_classes
from genloop.rewards.settings import JudgeSettings
from genloop.rundir import append_metrics, read_run
from genloop.runs.provenance import CHUNK, image_chunk
from genloop.runs.recording import generated_row
from genloop.runs.rows import GeneratedRow
from genloop.runs.sinks import SINKS, Format, ImageSink
from genloop.sampling.build import build_generator, check_generator, check_mode, warn_of_cuts
from genloop.sampling.modes import TEXT, GivenImage, ModeSettings
from genloop.sampling.settings import GeneratorKeys
from genloop.search.settings import SearchSettings, strategy_class

if TYPE_CHECKING:
    from genloop.protocols import Sampler, Strategy

log = logging.getLogger(__name__)
KIND = "independent"


class Config(GeneratorKeys, PromptKeys, IndependentConfig):
    text: Text = Field("prompt", description="what the generator reads: the prompt, or its metadata's detailed_caption")
    mode: ModeSettings = ModeSettings()
    images_per_prompt: Repeats = Field(4, description="samples of each prompt; each is searched for on its own")
    search: SearchSettings = SearchSettings()
    judge: JudgeSettings = JudgeSettings()
    format: Annotated[Format, ADDED] = Field("folder", description="GenEval's folder, or a WebDataset shard a unit")
    refuse_black: Annotated[bool, LAUNCH] = Field(
        True, description="a black image is a failure, as one with NaN always is; false where prompts may ask for it"
    )
    previews: Literal["none", "judged"] = Field("none", description="keep pictures of what judges were shown")


@dataclass(frozen=True)
class Checked:
    """What there is to draw."""

    prompts: list[Prompt]
    given: GivenFolder | None  # what the mode starts from


def check(config: Config) -> Checked:
    """Prompts, names, given images and checkpoint headers, before anything is loaded or written."""
    config.search.check(config.mode.num_steps(config.sampling.num_steps))
    questions = config.search.questions
    classes = judge_classes(config.judge) if questions else None
    prompts = read_prompts(config.prompts, config.metadata, limit=config.limit, classes=classes, text=config.text)
    if questions:
        check_judge(config.judge, resolve, questions)
        check_prompts(config.judge, prompts)
    check_generator(config, resolve, questions)
    check_mode(config.generator, config.mode, resolve)
    if config.mode.kind == "extrapolate" and config.search.strategy != "none":
        raise ValueError(f"search.strategy: mode.kind=extrapolate has no search, found {config.search.strategy!r}")
    if given := _given(config, len(prompts)):
        given.check()
    return Checked(prompts, given)


def _given(config: Config, num_prompts: int) -> GivenFolder | None:
    """The images that the mode starts from, one a prompt."""
    mode = config.mode
    if mode.kind == TEXT:
        return None
    masks = getattr(mode.options, "masks", None)
    return GivenFolder(mode.options.images, masks, num_prompts, all_lines=config.limit is None)


def inputs(config: Config, checked: Checked) -> dict[str, Path]:
    """Checkpoints, whose content enters the fingerprint."""
    found = config.generator.inputs(resolve, "generator")
    return found | (config.judge.inputs(resolve, "judge") if config.search.questions else {})


def work(config: Config) -> Workload:
    """The prompts; a unit is so many of them."""
    prompts = len(read_prompts(config.prompts, config.metadata, limit=config.limit, text=config.text))
    return Workload(prompts, prompts)


def footprint(config: Config, checked: Checked, *, device: str, ranks: int) -> Footprint:
    """Two steps of as many paths as there are slots, the questions about them, and their decoding."""
    from genloop.models.common.footprint import rehearsal

    samples = config.images_per_prompt
    drawn = [
        (prompt, Seed(config.seed, prompt.index, sample, candidate))
        for prompt in checked.prompts
        for sample in range(samples)
        for candidate in range(config.search.n)
    ]
    paths = drawn[: min(config.slots, config.unit_size * samples * config.search.n)]
    prompts, seeds = [prompt for prompt, _ in paths], [seed for _, seed in paths]
    with rehearsal(device) as tracker:
        with tracker.part("generator"):
            sampler = build_generator(config.model_copy(update={"device": "meta"}), resolve, "meta")
        with tracker.part("judge"):
            judge = build_judge(config.judge, resolve, "meta") if config.search.questions else None
        with tracker.part("prefixes"):
            state = sampler.start(prompts, seeds)
        before, images = state, sampler.images_per_decode if hasattr(sampler, "images_per_decode") else 1
        for _ in range(min(2, sampler.num_steps)):
            before, state = state, sampler.step(state)
        del before
        pixels = sampler.preview(state) if judge else sampler.decode(state.guess[:images])
        for question in config.search.questions:
            if judge and question not in ABILITIES:
                judge.p_yes(question, prompts, pixels)
        kept = getattr(judge, "segments", None)
        more = 0 if kept is None else _kept_at_the_end(config, kept.size / len(paths), len(drawn), kept) - kept.size
    parts = tracker.parts | ({} if kept is None else {"judge's cache": more + kept.size})
    working = tracker.peak + more - sum(parts.values())
    height, width = pixels.shape[2:]
    return Footprint(parts, working, {"images, at most": 3 * height * width * samples * len(checked.prompts)})


def main(config: Config, world: World, checked: Checked) -> None:
    prompts, given = checked.prompts, checked.given
    if world.rank == 0:
        warn_of_cuts(config.generator, resolve, prompts)
    units = plan_units(len(prompts), config.unit_size)
    with Ledger.of(config, units, world, rows_per_item=config.images_per_prompt) as ledger:
        work: tuple[Sampler[Any], Strategy] | None = None
        fingerprint = read_run(config.out) or {}
        for unit in ledger.claims():
            work = work or _load(config, given, world)  # a finished run loads nothing
            with ledger.working(unit):
                began = time.monotonic()
                sink = SINKS[config.format](ledger, unit, fingerprint)
                rows = _generate(config, prompts[unit.start : unit.stop], *work, sink, world)
                sink.close()
                if given:
                    rows = [row.model_copy(update={"given": given.names[row.prompt_index]}) for row in rows]
                ledger.complete(unit, [row.to_json() for row in rows])
                _log_unit(config, unit, rows, time.monotonic() - began)


def _kept_at_the_end(config: Config, each: float, paths: int, kept: Any) -> int:
    """Bytes of the judge's cache at the end of a run: looks at previews are as many as there are steps, at most."""
    looks = config.sampling.num_steps if set(config.search.questions) - {"outcome"} else 1
    return int(min(kept.capacity, each * paths * looks))


def _load(config: Config, given: GivenFolder | None, world: World) -> "tuple[Sampler[Any], Strategy]":
    """The sampler, and the search over it with its judge when it asks one."""
    search, device = config.search, choose_device(config.device, world)
    sampler = build_generator(config, resolve, device, before_step=world.step)
    if given:
        start = load(config.generator.mode(config.mode.kind))
        sampler, drawn = start(
            sampler, config.mode.options, lambda line: GivenImage(given.image(line), given.hole(line))
        )
        if drawn is not None:
            return sampler, drawn
    judge = build_judge(config.judge, resolve, device) if search.questions else None
    return sampler, strategy_class(search.strategy)(sampler, judge, search.n, search.options)


def _generate(
    config: Config,
    prompts: Sequence[Prompt],
    sampler: "Sampler[Any]",
    strategy: "Strategy",
    sink: ImageSink,
    world: World,
) -> list[GeneratedRow]:
    """All images of a unit's prompts -> their rows. Threads encode and write; images are written in order."""
    pairs = [(prompt, sample) for prompt in prompts for sample in range(config.images_per_prompt)]
    choices = zip(pairs, strategy.search(pairs, config.seed), strict=True)
    rows: list[GeneratedRow] = []

    def keep(row: GeneratedRow) -> None:
        rows.append(row)
        sink.ledger.advance(1)

    with InOrder(keep) as writing:
        while part := list(islice(choices, getattr(sampler, "images_per_decode", 1))):
            world.check_stop()
            chosen = [choice.candidates[choice.chosen].content for _, choice in part]
            with note(_name(*part[0][0]) + (f" and {len(part) - 1} more" if part[1:] else "")):
                images = list(_pixels(chosen, sampler))
            for ((prompt, sample), choice), (image, is_finite) in zip(part, images, strict=True):
                with note(_name(prompt, sample)):
                    _check_image(image, is_finite, config)
                    row = generated_row(
                        prompt, sample, choice, sampler, config.search.strategy, sink.place(prompt.index, sample)
                    )
                    sheet = _previews(choice, sampler) if config.previews == "judged" else None
                writing.submit(
                    partial(_encode, image, sheet, image_chunk(sink.regime, row)), partial(_write, prompt, row, sink)
                )
    return rows


def _name(prompt: Prompt, sample: int) -> str:
    return f"prompt {prompt.index} {prompt.text!r}, sample {sample}"


def _encode(image: np.ndarray, sheet: np.ndarray | None, chunk: str) -> tuple[bytes, bytes | None]:
    """The PNGs of an image, with its text chunk, and of its previews."""
    from genloop.data.images import encode_png

    return encode_png(image, {CHUNK: chunk}), None if sheet is None else encode_png(sheet)


def _check_image(image: np.ndarray, is_finite: bool, config: Config) -> None:
    """ValueError for an image that no generator means: NaN or infinite values, or every pixel black."""
    if not is_finite:
        raise ValueError("the image holds NaN or infinite values; use another dtype for the generator or its decoder")
    if config.refuse_black and not image.any():
        raise ValueError("the image is black; use another dtype, or refuse_black=false where prompts may ask for it")


def _write(prompt: Prompt, row: GeneratedRow, sink: ImageSink, pngs: tuple[bytes, bytes | None]) -> GeneratedRow:
    """Keep an image and its previews -> the row, which says so."""
    png, sheet = pngs
    with note(_name(prompt, row.sample)):
        row = row.model_copy(update={"sha256": hashlib.sha256(png).hexdigest()})
        sink.put(prompt, row, png)
        if sheet is None:
            return row
        previews = f"paths/{prompt.index:05d}/{row.sample:04d}.png"
        sink.ledger.write(sink.ledger.run / previews, sheet)
    return row.model_copy(update={"previews": previews})


def _previews(choice: Choice, sampler: "Sampler[Any]") -> np.ndarray | None:
    """What judges were shown: a row a candidate, a column a step. None when nobody was asked."""
    from genloop.data.images import contact_sheet

    guesses = {(c.index, seen.step): seen.guess for c in choice.candidates for seen in c.trace}
    if not guesses:
        return None
    pictures = dict(zip(guesses, (image for image, _ in _pixels(list(guesses.values()), sampler))))
    steps = sorted({step for _, step in guesses})
    return contact_sheet([[pictures.get((c.index, step)) for step in steps] for c in choice.candidates])


def _pixels(contents: Sequence[np.ndarray], sampler: "Sampler[Any]") -> Iterator[tuple[np.ndarray, bool]]:
    """Contents of images -> (H, W, 3) uint8 of each, and whether all its values were finite."""
    import torch

    from genloop.data.images import to_uint8

    for part in torch.from_numpy(np.stack(contents)).split(sampler.slots):
        decoded = sampler.decode(part)
        yield from zip(to_uint8(decoded.nan_to_num()), decoded.isfinite().flatten(1).all(1).tolist())


def _log_unit(config: Config, unit: Unit, rows: Sequence[GeneratedRow], seconds: float) -> None:
    costs = [row.cost for row in rows]
    answers = [answer.p_yes for row in rows for candidate in row.candidates for answer in candidate.trace]
    if unknown := answers.count(None):
        log.warning("unit %s: the judge gave no answer to %d of %d questions", unit.name, unknown, len(answers))
    critiques = [candidate.critique for row in rows for candidate in row.candidates if candidate.critique]
    if failed := sum(critique.failed for critique in critiques):
        log.warning(
            "unit %s: %d of %d critiques failed; their images stay as they are", unit.name, failed, len(critiques)
        )
    totals = {key: sum(getattr(cost, key) for cost in costs) for key in ("generator_steps", "judge_calls", "flops")}
    append_metrics(config.out, {"unit": unit.name, "images": len(rows), **totals, "seconds": round(seconds, 3)})


if __name__ == "__main__":
    run(main, Config)
