"""Generate images for every prompt of a file, with or without a search over candidates.

    genloop run generate tiny out=runs/a
    genloop run generate tiny out=runs/b search.strategy=best_of_n search.n=8 --procs 2
    genloop run generate tiny out=runs/c search.strategy=best_of_n search.n=8 previews=judged
    genloop run generate showo_256 out=runs/r prompts=rewritten.jsonl text=detailed_caption
    torchrun --nproc-per-node 8 -m jobs.generate showo_256 out=runs/d prompts=prompts.txt

Reads   a prompt file (and its GenEval metadata), a Show-o checkpoint, an image tokenizer; a judge's checkpoint when
        the strategy asks one.
Writes  RUN/images/00017/samples/0000.png + metadata.jsonl (the layout GenEval reads); RUN/rows/*.jsonl, one line an
        image: tokens, scores and way of all candidates, the chosen one, its sha256, what it cost. Each PNG says in a
        text chunk how it was made. With previews=judged RUN/paths/00017/0000.png: a row a candidate, a column a step
        at which a judge was asked. With text=detailed_caption the generator reads the rewritten prompt that a line of
        metadata holds beside the original one; judges and evaluations go on seeing the original. Rows, PNGs and
        metadata.jsonl then hold both.
Resume  the same command; finished units are kept, any number of workers may join or leave. An image depends on the
        config and its prompt's line alone: not on workers, slots or restarts.
"""

import hashlib
import json
import logging
import math
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field

from ckpts.resolve import resolve
from geneval.regime import CHUNK, image_chunk, regime_of
from genloop.config import LAUNCH, Device, DType, PromptConfig, Settings
from genloop.data.prompts import Text, read_prompts
from genloop.distributed import World, choose_device
from genloop.job import note, run
from genloop.ledger import Ledger, plan_units
from genloop.models.common.image_tokenizers import check_image_tokenizer, load_image_tokenizer
from genloop.models.common.text import FileTokenizer, check_text_tokenizer, with_bos
from genloop.models.showo.config import check_showo_folder
from genloop.records import Candidate, Choice, Prompt, Unit, pack_tokens
from genloop.rewards.build import build_judge, check_judge, check_prompts, judge_classes, judge_inputs
from genloop.rewards.settings import JudgeSettings
from genloop.rundir import append_metrics, read_run, write_atomic
from genloop.sampling.maskgit.settings import SamplingConfig
from genloop.search.settings import SearchSettings, strategy_class

if TYPE_CHECKING:
    from genloop.protocols import Sampler, Strategy

log = logging.getLogger(__name__)
KIND = "independent"


class ModelConfig(Settings):
    """Which weights, each a name of `ckpts` or a folder, fingerprinted by content; and how they are held."""

    showo: Annotated[str, LAUNCH] = Field("shapes/showo", description="Show-o checkpoint")
    tokenizer: Annotated[str, LAUNCH] = Field("shapes/tokenizer", description="image tokenizer")
    text_tokenizer: Annotated[str | None, LAUNCH] = Field(
        None, description="text tokenizer, if the checkpoint has none"
    )
    dtype: DType = Field("float32", description="of Show-o; the image tokenizer stays in float32")
    device: Device = Field("auto", description="auto: the GPU when there is one")


class Config(PromptConfig):
    text: Text = Field("prompt", description="what the generator reads: the prompt, or its metadata's detailed_caption")
    images_per_prompt: int = Field(4, ge=1, description="samples of each prompt; each is searched for on its own")
    model: ModelConfig = ModelConfig()
    sampling: SamplingConfig = SamplingConfig()
    search: SearchSettings = SearchSettings()
    judge: JudgeSettings = JudgeSettings()
    previews: Literal["none", "judged"] = Field("none", description="keep pictures of what judges were shown")
    slots: Annotated[int, LAUNCH] = Field(64, ge=1, description="paths decoded side by side")
    rows_per_forward: Annotated[int, LAUNCH] = Field(256, ge=1, description="rows in one forward pass, two a path")
    threads: int = Field(1, ge=1, description="CPU threads of a worker")


def check(config: Config) -> None:
    """Prompts, names and checkpoint headers, before anything is loaded or written."""
    config.search.check(config.sampling.num_steps)
    questions = config.search.questions
    classes = judge_classes(config.judge) if questions else None
    prompts = _prompts(config, classes)
    if questions:
        check_judge(config.judge, resolve, questions)
        check_prompts(config.judge, prompts)
    showo = check_showo_folder(resolve(config.model.showo))
    check_text_tokenizer(FileTokenizer(_text_tokenizer(config)), showo.llm_vocab_size, config.model.showo)
    num_codes = check_image_tokenizer(resolve(config.model.tokenizer))
    if num_codes != showo.codebook_size:
        raise ValueError(
            f"model.tokenizer: {config.model.tokenizer} has {num_codes} codes, "
            f"{config.model.showo} was trained on {showo.codebook_size}"
        )


def _prompts(config: Config, classes: Collection[str] | None = None) -> list[Prompt]:
    """The prompts of the config; metadata may name `classes` only."""
    return read_prompts(config.prompts, config.metadata, limit=config.limit, classes=classes, text=config.text)


def inputs(config: Config, checked: None) -> dict[str, Path]:
    """Checkpoints, whose content enters the fingerprint."""
    found = {"model.showo": resolve(config.model.showo), "model.tokenizer": resolve(config.model.tokenizer)}
    found |= {"model.text_tokenizer": _text_tokenizer(config)} if config.model.text_tokenizer else {}
    return found | (judge_inputs(config.judge, resolve) if config.search.questions else {})


def _text_tokenizer(config: Config) -> Path:
    """The folder of the text tokenizer: the configured one, else that of the checkpoint."""
    named = config.model.text_tokenizer
    return resolve(named) if named else resolve(config.model.showo) / "tokenizer"


def main(config: Config, world: World, checked: None) -> None:
    prompts = _prompts(config)
    if world.rank == 0:
        _warn_of_cuts(config, prompts)
    units = plan_units(len(prompts), config.unit_size)
    with Ledger.of(config, units, world) as ledger:
        work: tuple[Sampler[Any], Strategy] | None = None
        regime = regime_of(read_run(config.out) or {})
        for unit in ledger.claims():
            work = work or _load(config, world)  # a finished run loads nothing
            with ledger.working(unit):
                began = time.monotonic()
                rows = _generate(config, prompts[unit.start : unit.stop], *work, regime, ledger, world)
                ledger.complete(unit, rows)
                _log_unit(config, unit, rows, time.monotonic() - began)


def _warn_of_cuts(config: Config, prompts: Sequence[Prompt]) -> None:
    """Show-o reads so many tokens of a text and no more, which rewritten prompts easily exceed."""
    room = check_showo_folder(resolve(config.model.showo)).max_seq_length - 1  # the last one is eos
    tokenizer = FileTokenizer(_text_tokenizer(config))
    longer = [prompt.index for prompt in prompts if len(with_bos(tokenizer, prompt.condition)) > room]
    if longer:
        log.warning(
            "%d of %d texts are longer than the %d tokens that the generator reads; their ends are cut off: prompts %s",
            len(longer),
            len(prompts),
            room,
            ", ".join(map(str, longer[:5])) + (", ..." if len(longer) > 5 else ""),
        )


def _load(config: Config, world: World) -> "tuple[Sampler[Any], Strategy]":
    sampler = build_sampler(config, world)
    return sampler, build_strategy(config, sampler, world)


def build_sampler(config: Config, world: World) -> "Sampler[Any]":
    """The sampler over the configured weights, on this worker's device."""
    import torch

    from genloop.models.showo.model import load_showo
    from genloop.sampling.maskgit.sampler import MaskGitSampler

    torch.set_num_threads(config.threads)
    device = choose_device(config.model.device, world)
    model = load_showo(
        resolve(config.model.showo),
        dtype=getattr(torch, config.model.dtype),
        device=device,
        text_tokenizer=_text_tokenizer(config),
    )
    tokenizer = load_image_tokenizer(resolve(config.model.tokenizer), device=device)
    return MaskGitSampler(
        model,
        tokenizer,
        config.sampling,
        rows_per_forward=config.rows_per_forward,
        slots=config.slots,
        before_step=world.check_stop,
    )


def build_strategy(config: Config, sampler: "Sampler[Any]", world: World) -> "Strategy":
    """The configured search over `sampler`, with its judge when it asks one."""
    search = config.search
    judge = None
    if search.questions:
        judge = build_judge(config.judge, resolve, choose_device(config.model.device, world))
    return strategy_class(search.strategy)(sampler, judge, search.n, search.options)


def _generate(
    config: Config,
    prompts: Sequence[Prompt],
    sampler: "Sampler[Any]",
    strategy: "Strategy",
    regime: Mapping[str, Any],
    ledger: Ledger,
    world: World,
) -> list[dict[str, Any]]:
    """All images of a unit's prompts, each written as soon as it is chosen -> their rows."""
    pairs = [(prompt, sample) for prompt in prompts for sample in range(config.images_per_prompt)]
    rows = []
    for (prompt, sample), choice in zip(pairs, strategy.search(pairs, config.seed), strict=True):
        world.check_stop()
        with note(f"prompt {prompt.index} {prompt.text!r}, sample {sample}"):
            row = _row(config, prompt, sample, choice, sampler)
            rows.append(row | _write_image(config, prompt, row, choice, sampler, regime, ledger.staging))
        ledger.advance(1)
    return rows


def _write_image(
    config: Config,
    prompt: Prompt,
    row: dict[str, Any],
    choice: Choice,
    sampler: "Sampler[Any]",
    regime: Mapping[str, Any],
    staging: Path,
) -> dict[str, str]:
    """The chosen image, its metadata, its previews -> what the row says about them."""
    from genloop.data.images import encode_png

    (image,) = _pixels([choice.candidates[choice.chosen].tokens], sampler)
    png = encode_png(image, {CHUNK: image_chunk(regime, row)})
    path = config.out / row["image"]
    if row["sample"] == 0:
        path.parent.mkdir(parents=True, exist_ok=True)
        line = (json.dumps(prompt.metadata()) + "\n").encode()
        write_atomic(path.parent.parent / "metadata.jsonl", line, staging=staging)
    write_atomic(path, png, staging=staging)
    facts = {"sha256": hashlib.sha256(png).hexdigest()}
    sheet = _previews(choice, sampler) if config.previews == "judged" else None
    if sheet is not None:
        facts["previews"] = f"paths/{prompt.index:05d}/{row['sample']:04d}.png"
        (config.out / facts["previews"]).parent.mkdir(parents=True, exist_ok=True)
        write_atomic(config.out / facts["previews"], encode_png(sheet), staging=staging)
    return facts


def _previews(choice: Choice, sampler: "Sampler[Any]") -> np.ndarray | None:
    """What judges were shown: a row a candidate, a column a step. None when nobody was asked."""
    from genloop.data.images import contact_sheet

    guesses = {(c.index, seen.step): seen.guess for c in choice.candidates for seen in c.trace}
    if not guesses:
        return None
    pictures = dict(zip(guesses, _pixels(list(guesses.values()), sampler)))
    steps = sorted({step for _, step in guesses})
    return contact_sheet([[pictures.get((c.index, step)) for step in steps] for c in choice.candidates])


def _pixels(tokens: Sequence[np.ndarray], sampler: "Sampler[Any]") -> np.ndarray:
    """Tokens (n,) of B images -> (B, H, W, 3) uint8"""
    import torch

    from genloop.data.images import to_uint8

    codes = torch.from_numpy(np.stack(tokens))
    return np.concatenate([to_uint8(sampler.decode(part)) for part in codes.split(sampler.slots)])


def _row(config: Config, prompt: Prompt, sample: int, choice: Choice, sampler: "Sampler[Any]") -> dict[str, Any]:
    best, cost = choice.candidates[choice.chosen], choice.cost
    alone = sampler.num_steps * sampler.flops_per_step + sampler.flops_per_decode
    steps = int(cost.generator_steps) if cost.generator_steps == int(cost.generator_steps) else cost.generator_steps
    rewritten = {} if prompt.detailed_caption is None else {"rewritten_prompt": prompt.detailed_caption}
    return {
        "prompt_index": prompt.index,
        "sample": sample,
        "prompt": prompt.text,
        **rewritten,
        "tag": prompt.tag,
        "image": f"images/{prompt.index:05d}/samples/{sample:04d}.png",
        "sha256": "",
        "grid": list(sampler.grid),
        "strategy": config.search.strategy,
        "chosen": best.index,
        "tokens": pack_tokens(best.tokens),
        "revealed_at": pack_tokens(best.revealed_at),
        "num_steps": max(sampler.num_steps, 1 + int(best.revealed_at.max())),  # more when it was corrected
        "cost": {
            "generator_steps": steps,
            "judge_calls": cost.judge_calls,
            "flops": cost.flops,
            "flops_without_search": alone,
        },
        "candidates": [_candidate(candidate) for candidate in choice.candidates],
    }


def _candidate(candidate: Candidate) -> dict[str, Any]:
    row: dict[str, Any] = {
        "candidate": candidate.index,
        "tokens": pack_tokens(candidate.tokens),
        "p_yes": {question: _known(p) for question, p in candidate.p_yes.items()},
        "trace": [[seen.step, seen.question, _known(seen.p_yes)] for seen in candidate.trace],
        "cut_at": candidate.cut_at,
    }
    row |= {} if candidate.parent is None else {"parent": candidate.parent}
    return row | ({"reason": candidate.reason} if candidate.reason else {})


def _known(p_yes: float) -> float | None:
    """JSON has no NaN: an answer that the judge did not give is null."""
    return None if math.isnan(p_yes) else p_yes


def _log_unit(config: Config, unit: Unit, rows: Sequence[dict[str, Any]], seconds: float) -> None:
    totals = {key: sum(row["cost"][key] for row in rows) for key in ("generator_steps", "judge_calls", "flops")}
    answers = [seen[2] for row in rows for candidate in row["candidates"] for seen in candidate["trace"]]
    if unknown := answers.count(None):
        log.warning("unit %s: the judge gave no answer to %d of %d questions", unit.name, unknown, len(answers))
    append_metrics(config.out, {"unit": unit.name, "images": len(rows), **totals, "seconds": round(seconds, 3)})


if __name__ == "__main__":
    run(main, Config)
