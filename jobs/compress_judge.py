"""Write a smaller form of a judge: fewer bits, layers, pixels or query tokens.

    genloop run compress_judge tiny out=runs/smaller
    genloop run compress_judge nf4 checkpoint=llava-onevision-hf out=runs/judge-nf4
    genloop run compress_judge layers checkpoint=qwen2.5-vl-7b-instruct out=runs/layers
    genloop run train_vlm qwen25_vl_lora start=runs/layers/judge out=runs/layers-lora merged=true

Reads   a folder of Qwen2-VL, Qwen2.5-VL, LLaVA-OneVision or InstructBLIP as published, with full weights.
Writes  RUN/judge, a folder in the same layout, which transformers and every judge of the suite load: what is left
        out is gone from the file, quantised weights are stored as such. RUN/judge/compression.json says what was
        done to what. Calibrations of the original do not hold for it and are left out.
Resume  the same command computes it again; the bytes depend on the original and the config alone.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from ckpts.resolve import resolve
from genloop import terminal
from genloop.checkpoint import find_weights, read_shapes
from genloop.config import LAUNCH, JobConfig
from genloop.distributed import World
from genloop.job import run
from genloop.models.smaller.settings import PACKAGES, Reduction, ReductionPlan, plan_reduction
from genloop.registry import check_installed

if TYPE_CHECKING:
    from genloop.planning import Footprint

KIND = "independent"


class Config(Reduction, JobConfig):
    checkpoint: Annotated[str, LAUNCH] = Field(description="folder, or a name of `ckpts`; fingerprinted by content")


@dataclass(frozen=True)
class Checked:
    """The folder of the original and what is left out of it."""

    folder: Path
    plan: ReductionPlan


def check(config: Config) -> Checked:
    """Family and sizes, from config.json and headers, before anything is loaded or written."""
    folder = resolve(config.checkpoint)
    plan = plan_reduction(folder, config)
    read_shapes(folder)
    if not find_weights(folder).is_safetensors:
        raise ValueError(f"checkpoint: {folder} holds weights as .bin files; use safetensors")
    if package := PACKAGES.get(config.quantise):
        check_installed(package, "qlora")
    return Checked(folder, plan)


def inputs(config: Config, checked: Checked) -> dict[str, Path]:
    """The original's content enters the fingerprint."""
    return {"checkpoint": checked.folder}


def footprint(config: Config, checked: Checked, *, device: str, ranks: int) -> "Footprint":
    """The weights are in memory once; beside them those of the smaller form."""
    from genloop.planning import Footprint

    size = sum(path.stat().st_size for path in find_weights(checked.folder).files)
    return Footprint({"weights": size}, size, {"judge, at most": size})


def main(config: Config, world: World, checked: Checked) -> None:
    from genloop.models.common.measure import weight_bytes
    from genloop.models.smaller.write import write_smaller

    if world.rank != 0:
        return
    write_smaller(checked.folder, checked.plan, config.out / "judge")
    before, now = weight_bytes(checked.folder), weight_bytes(config.out / "judge")
    terminal.out(f"{before:,} -> {now:,} bytes of weights, {config.out / 'judge'}")


if __name__ == "__main__":
    run(main, Config)
