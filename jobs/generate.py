"""Generate images for every prompt of a file, with or without a search over candidates.

    genloop run generate tiny out=runs/a
    genloop run generate tiny out=runs/b search.strategy=best_of_n search.n=8 --procs 2
    torchrun --nproc-per-node 8 -m jobs.generate showo_256 out=runs/c prompts=prompts.txt

Reads   a prompt file (and its GenEval metadata), a Show-o checkpoint, an image tokenizer.
Writes  RUN/images/00017/samples/0000.png + metadata.jsonl (the layout GenEval reads); RUN/rows/*.jsonl, one line an
        image: tokens and scores of all candidates, the chosen one, its sha256, what it cost.
Resume  the same command; finished units are kept, any number of workers may join or leave. An image depends on the
        config and its prompt's line alone: not on workers, batches or restarts.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from ckpts.resolve import resolve
from genloop.config import LAUNCH, Device, DType, PromptConfig, Settings
from genloop.data.prompts import read_prompts
from genloop.distributed import World, choose_device
from genloop.job import note, run
from genloop.ledger import Ledger, plan_units
from genloop.models.image_tokenizers import check_image_tokenizer, load_image_tokenizer
from genloop.models.showo_config import check_showo_folder
from genloop.models.text import FileTokenizer, check_text_tokenizer
from genloop.records import Choice, Prompt, Unit, pack_tokens
from genloop.registry import load, lookup
from genloop.rewards import JUDGE_CLASSES, JUDGES
from genloop.rundir import append_metrics, write_atomic
from genloop.sampling.settings import SamplingConfig
from genloop.search import NEEDS_JUDGE, STRATEGIES

if TYPE_CHECKING:
    from genloop.protocols import Sampler, Strategy

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


class SearchConfig(Settings):
    """How candidates are spent."""

    strategy: str = Field("none", description="none, best_of_n")
    n: int = Field(1, ge=1, description="candidates an image")
    judge: str = Field("shapes_oracle", description="who chooses: shapes_oracle")


class Config(PromptConfig):
    images_per_prompt: int = Field(4, ge=1, description="samples of each prompt; each is searched for on its own")
    model: ModelConfig = ModelConfig()
    sampling: SamplingConfig = SamplingConfig()
    search: SearchConfig = SearchConfig()
    prompts_per_batch: Annotated[int, LAUNCH] = Field(4, ge=1, description="prompts decoded side by side")
    rows_per_forward: Annotated[int, LAUNCH] = Field(256, ge=1, description="candidates in one forward pass")
    threads: int = Field(1, ge=1, description="CPU threads of a worker")


def check(config: Config) -> None:
    """Prompts, names and checkpoint headers, before anything is loaded or written."""
    lookup(STRATEGIES, config.search.strategy, "strategy")
    judged = config.search.strategy in NEEDS_JUDGE
    if judged:
        lookup(JUDGES, config.search.judge, "judge")
    elif config.search.n != 1:
        raise ValueError(f"search.n: strategy {config.search.strategy!r} draws one candidate, found {config.search.n}")
    classes = load(JUDGE_CLASSES[config.search.judge]) if judged and config.search.judge in JUDGE_CLASSES else None
    prompts = read_prompts(config.prompts, config.metadata, limit=config.limit, classes=classes)
    if judged and prompts[0].tag is None:
        raise ValueError(f"metadata: judge {config.search.judge!r} needs GenEval metadata beside the prompts")
    showo = check_showo_folder(resolve(config.model.showo))
    check_text_tokenizer(FileTokenizer(_text_tokenizer(config)), showo.llm_vocab_size, config.model.showo)
    num_codes = check_image_tokenizer(resolve(config.model.tokenizer))
    if num_codes != showo.codebook_size:
        raise ValueError(
            f"model.tokenizer: {config.model.tokenizer} has {num_codes} codes, "
            f"{config.model.showo} was trained on {showo.codebook_size}"
        )


def inputs(config: Config) -> dict[str, Path]:
    """Checkpoints, whose content enters the fingerprint."""
    found = {"model.showo": resolve(config.model.showo), "model.tokenizer": resolve(config.model.tokenizer)}
    return found | ({"model.text_tokenizer": _text_tokenizer(config)} if config.model.text_tokenizer else {})


def _text_tokenizer(config: Config) -> Path:
    """The folder of the text tokenizer: the configured one, else that of the checkpoint."""
    named = config.model.text_tokenizer
    return resolve(named) if named else resolve(config.model.showo) / "tokenizer"


def main(config: Config, world: World) -> None:
    prompts = read_prompts(config.prompts, config.metadata, limit=config.limit)
    units = plan_units(len(prompts), config.unit_size)
    with Ledger.of(config, units, world) as ledger:
        work: tuple[Sampler[Any], Strategy] | None = None
        for unit in ledger.claims():
            work = work or _load(config, world)  # a finished run loads nothing
            with ledger.working(unit):
                rows = []
                for batch in _batches(prompts[unit.start : unit.stop], config.prompts_per_batch):
                    world.check_stop()
                    with note(f"prompts {', '.join(f'{p.index} {p.text!r}' for p in batch)}"):
                        rows += _generate(config, batch, *work, ledger)
                ledger.complete(unit, rows)
                _log_unit(config, unit, rows)


def _load(config: Config, world: World) -> "tuple[Sampler[Any], Strategy]":
    sampler = build_sampler(config, world)
    return sampler, build_strategy(config, sampler)


def build_sampler(config: Config, world: World) -> "Sampler[Any]":
    """The sampler over the configured weights, on this worker's device."""
    import torch

    from genloop.models.showo import load_showo
    from genloop.sampling.maskgit import MaskGitSampler

    torch.set_num_threads(config.threads)
    device = choose_device(config.model.device, world)
    model = load_showo(
        resolve(config.model.showo),
        dtype=getattr(torch, config.model.dtype),
        device=device,
        text_tokenizer=_text_tokenizer(config),
    )
    tokenizer = load_image_tokenizer(resolve(config.model.tokenizer), device=device)
    return MaskGitSampler(model, tokenizer, config.sampling, rows_per_forward=config.rows_per_forward)


def build_strategy(config: Config, sampler: "Sampler[Any]") -> "Strategy":
    """The configured search over `sampler`, with its judge when it asks one."""
    judge = None
    if config.search.strategy in NEEDS_JUDGE:
        judge = lookup(JUDGES, config.search.judge, "judge")()
    return lookup(STRATEGIES, config.search.strategy, "strategy")(sampler, judge, config.search.n)


def _generate(
    config: Config, batch: Sequence[Prompt], sampler: "Sampler[Any]", strategy: "Strategy", ledger: Ledger
) -> list[dict[str, Any]]:
    """All images of a batch of prompts, written -> their rows."""
    import torch

    from genloop.data.images import encode_png, to_uint8

    pairs = [(prompt, sample) for prompt in batch for sample in range(config.images_per_prompt)]
    choices = strategy.search(pairs, config.seed)
    chosen = torch.stack([torch.from_numpy(choice.candidates[choice.chosen].tokens) for choice in choices])
    pixels = to_uint8(sampler.decode(chosen))
    rows = []
    for (prompt, sample), choice, image in zip(pairs, choices, pixels):
        png = encode_png(image)
        name = f"images/{prompt.index:05d}/samples/{sample:04d}.png"
        path = config.out / name
        if sample == 0:
            path.parent.mkdir(parents=True, exist_ok=True)
            line = (json.dumps(prompt.metadata()) + "\n").encode()
            write_atomic(path.parent.parent / "metadata.jsonl", line, staging=ledger.staging)
        write_atomic(path, png, staging=ledger.staging)
        rows.append(_row(config, prompt, sample, choice, name, hashlib.sha256(png).hexdigest(), sampler))
        ledger.advance(1)
    return rows


def _row(
    config: Config, prompt: Prompt, sample: int, choice: Choice, image: str, digest: str, sampler: "Sampler[Any]"
) -> dict[str, Any]:
    best = choice.candidates[choice.chosen]
    return {
        "prompt_index": prompt.index,
        "sample": sample,
        "prompt": prompt.text,
        "tag": prompt.tag,
        "image": image,
        "sha256": digest,
        "grid": list(sampler.grid),
        "strategy": config.search.strategy,
        "chosen": best.index,
        "tokens": pack_tokens(best.tokens),
        "revealed_at": pack_tokens(best.revealed_at),
        "num_steps": sampler.num_steps,
        "cost": {"generator_steps": choice.cost.generator_steps, "judge_calls": choice.cost.judge_calls},
        "candidates": [
            {"candidate": c.index, "tokens": pack_tokens(c.tokens), "p_yes": dict(c.p_yes)} for c in choice.candidates
        ],
    }


def _batches(prompts: Sequence[Prompt], size: int) -> list[Sequence[Prompt]]:
    return [prompts[start : start + size] for start in range(0, len(prompts), size)]


def _log_unit(config: Config, unit: Unit, rows: Sequence[dict[str, Any]]) -> None:
    steps = sum(row["cost"]["generator_steps"] for row in rows)
    calls = sum(row["cost"]["judge_calls"] for row in rows)
    entry = {"unit": unit.name, "images": len(rows), "generator_steps": steps, "judge_calls": calls}
    append_metrics(config.out, entry)


if __name__ == "__main__":
    run(main, Config)
