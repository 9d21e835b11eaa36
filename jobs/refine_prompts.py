"""Refine prompts by looking at the images that were made from them.

    genloop run refine_prompts tiny out=runs/r
    genloop run refine_prompts tiny source=runs/a out=runs/r critic.kind=qwen critic.options.checkpoint=FOLDER
    genloop run generate tiny prompts=runs/r/evaluation_metadata.jsonl metadata= text=detailed_caption out=runs/b

Reads   a finished run of `generate`: of each prompt the image `sample`, which is measured; the critic's
        checkpoint. Nothing is drawn.
Writes  RUN/rows/*.jsonl, one line a prompt: prompt, refined prompt, critique. When all units are done the refined
        prompts as a prompt file: RUN/evaluation_metadata.jsonl, which keeps the prompts and holds the refined ones
        as `detailed_caption`; RUN/generation_prompts.txt with the refined texts alone where there is no metadata.
        A prompt with nothing to refine, or whose critique failed, stays as it is.
Resume  the same command; finished units are kept, any number of workers may join or leave. A row depends on the
        config and its image alone.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import Field

from ckpts.resolve import resolve
from genloop import terminal
from genloop.bounds import CountOrNone
from genloop.config import ComputeKeys, IndependentConfig, InputPath
from genloop.data.prompts import METADATA_FILE, PROMPTS_FILE
from genloop.distributed import World, choose_device
from genloop.job import loading, note, run
from genloop.ledger import Ledger, count, plan_units, rows_of_units
from genloop.meanings import GENERATED
from genloop.reading import json_object
from genloop.records import Prompt
from genloop.rewards.critics.settings import CriticSettings, ImageCritic, Sight, build_critic
from genloop.runs.generated import check_generated, prompt_of, read_generated
from genloop.runs.rows import GeneratedRow

KIND = "independent"


class Config(ComputeKeys, IndependentConfig):
    source: InputPath = Field(description=GENERATED)
    sample: CountOrNone = Field(0, description="which image of each prompt the critic looks at")
    critic: CriticSettings = CriticSettings(kind="rules")


@dataclass(frozen=True)
class Checked:
    """The prompts of the source, and the row of one image of each."""

    prompts: Sequence[Prompt]
    rows: Sequence[GeneratedRow]


def check(config: Config) -> Checked:
    """The source, its images and the critic's files, before anything is loaded or written."""
    config.critic.check(resolve)
    check_generated(config.source, "source")
    rows = [row for row in read_generated(config.source) if row.sample == config.sample]
    rows = sorted(rows, key=lambda row: row.prompt_index)[: config.limit]
    if not rows:
        raise ValueError(f"sample: {config.source} has no image {config.sample} of any prompt")
    return Checked([prompt_of(config.source, row) for row in rows], rows)


def inputs(config: Config, checked: Checked) -> dict[str, Path]:
    """The critic's files, whose content enters the fingerprint."""
    return config.critic.inputs(resolve, "critic")


def main(config: Config, world: World, checked: Checked) -> None:
    import torch

    torch.set_num_threads(config.threads)
    critic: ImageCritic | None = None
    units = plan_units(len(checked.rows), config.unit_size)
    with Ledger.of(config, units, world) as ledger:
        for unit in ledger.claims():
            critic = critic or _load(config, world)
            with ledger.working(unit):
                pairs = zip(checked.prompts[unit.start : unit.stop], checked.rows[unit.start : unit.stop], strict=True)
                rows = [_refined(config, critic, prompt, row) for prompt, row in ledger.counted(pairs)]
                ledger.complete(unit, rows)
    if count(config.out, len(units)).done == len(units):
        _conclude(config, checked.prompts, rows_of_units(config.out, units, json_object))


def _load(config: Config, world: World) -> ImageCritic:
    with loading():
        return build_critic(config.critic, resolve, choose_device(config.device, world))


def _refined(config: Config, critic: ImageCritic, prompt: Prompt, row: GeneratedRow) -> dict[str, Any]:
    """The row of a prompt."""
    from genloop.data.image_reader import decode_image
    from genloop.data.irg.features import measure
    from genloop.data.irg.quality import intent_of
    from genloop.data.members import read_any

    with note(f"prompt {prompt.index} {prompt.text!r}, {row.image}"):
        image = decode_image(read_any(config.source / row.image))
        (critique,) = critic.criticise([Sight(prompt.text, measure(image), intent_of(prompt.text), image)])
    refined = critique.prompt if critique.diagnosis and not critique.failed else prompt.text
    told = {key: value for key, value in asdict(critique).items() if key != "prompt"}
    return {
        "prompt_index": prompt.index,
        "prompt": prompt.text,
        "rewritten_prompt": refined,
        "image": row.image,
        "critique": told,
    }


def _conclude(config: Config, prompts: Sequence[Prompt], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the prompt file; workers that end together write the same bytes."""
    from genloop.rundir import write_atomic

    found = [
        replace(prompt, detailed_caption=row["rewritten_prompt"]) for prompt, row in zip(prompts, rows, strict=True)
    ]
    path = config.out / (METADATA_FILE if prompts[0].tag else PROMPTS_FILE)
    lines = [json.dumps(prompt.metadata()) if prompts[0].tag else prompt.condition for prompt in found]
    write_atomic(path, "".join(f"{line}\n" for line in lines).encode())
    changed = sum(prompt.condition != prompt.text for prompt in found)
    failed = sum(row["critique"]["failed"] for row in rows)
    terminal.out(f"{path}: {changed} of {len(found)} prompts refined, {failed} critiques failed")


if __name__ == "__main__":
    run(main, Config)
