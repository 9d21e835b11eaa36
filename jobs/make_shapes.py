"""Write WebDataset shards of captioned scenes of the embedded world.

    genloop run make_shapes tiny out=runs/shards
    genloop run make_shapes shapes out=runs/shapes-data --procs 2

Reads   an image tokenizer (for `codes.npy`), unless tokenizer is null.
Writes  RUN/shards/00000.tar + index, one shard a unit: txt, json, codes.npy and (with_images=true) png;
        RUN/text_tokenizer/, the world's word-level tokenizer; RUN/rows/*.jsonl, one line a shard.
Resume  the same command; finished units are kept, any number of workers may join or leave. A shard depends on the
        config alone, and the bytes of shards are reproducible.
"""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from ckpts.resolve import resolve
from genloop.bounds import Count, Threads, Total, Weight
from genloop.config import LAUNCH, IndependentConfig
from genloop.data.shards import write_shard
from genloop.distributed import World
from genloop.job import run
from genloop.ledger import Ledger, plan_units
from genloop.meanings import THREADS, TOKENIZER
from genloop.models.common.image_tokenizers import check_image_tokenizer, load_image_tokenizer
from genloop.records import TAGS

KIND = "independent"


class Config(IndependentConfig):
    num_samples: Total = Field(65536, description="captioned scenes")
    unit_size: Count = Field(4096, description="samples in one unit of work, which is a shard")
    task_weights: list[Weight] = Field([1.0] * len(TAGS), description="how often each of the six tasks is drawn")
    tokenizer: Annotated[str | None, LAUNCH] = Field("shapes/tokenizer", description=TOKENIZER)
    with_images: bool = Field(False, description="keep the pixels, as PNG")
    threads: Threads = Field(1, description=THREADS)


def check(config: Config) -> Path | None:
    """Weights and tokenizer, before anything is written -> the folder of the tokenizer, if one is used."""
    if len(config.task_weights) != len(TAGS) or sum(config.task_weights) == 0:
        raise ValueError(f"task_weights: needs {len(TAGS)} numbers >= 0, not all 0, found {config.task_weights}")
    if config.tokenizer is not None:
        folder = resolve(config.tokenizer)
        check_image_tokenizer(folder)
        return folder
    if not config.with_images:
        raise ValueError("tokenizer: is null and with_images is false; the shards would hold captions only")
    return None


def inputs(config: Config, checked: Path | None) -> dict[str, Path]:
    """The tokenizer's content enters the fingerprint."""
    return {} if checked is None else {"tokenizer": checked}


def main(config: Config, world: World, checked: Path | None) -> None:
    import torch

    from genloop.shapes.samples import training_samples
    from genloop.shapes.text import write_text_tokenizer

    torch.set_num_threads(config.threads)
    tokenizer = None if checked is None else load_image_tokenizer(checked)
    write_text_tokenizer(config.out / "text_tokenizer")  # the same bytes from every worker
    total = min(config.num_samples, config.limit or config.num_samples)
    with Ledger.of(config, plan_units(total, config.unit_size), world) as ledger:
        for unit in ledger.claims():
            with ledger.working(unit):
                drawn = training_samples(
                    config.seed,
                    range(unit.start, unit.stop),
                    tokenizer,
                    weights=config.task_weights,
                    pixels=config.with_images,
                )
                path = config.out / "shards" / f"{unit.name}.tar"
                samples = ledger.counted(drawn)
                index = write_shard(path, samples, staging=ledger.staging, ready=ledger.check_lease)
                row = {"shard": index.path.name, "samples": len(unit), "bytes": index.num_bytes}
                ledger.complete(unit, [row | {"sha256": index.sha256}])


if __name__ == "__main__":
    run(main, Config)
