"""A judge's examples on disk: a folder of shards for each side of the split, and the ranking pairs among them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from genloop.data.judge.dataset import PATHS, Examples
from genloop.data.judge.examples import SPLITS, JudgeExample, RankingPair, balance, ranking_pairs
from genloop.data.shards import Sample, Shards, write_shard


def write_sides(
    shards: Path,
    unit: str,
    samples: Iterable[tuple[str, Sample]],
    *,
    staging: Path | None = None,
    ready: Callable[[], None] | None = None,
) -> list[dict[str, Any]]:
    """(split, sample) pairs -> SHARDS/SPLIT/UNIT.tar for each side that has samples, and a row about each.

    `staging` and `ready` are those of `write_shard`.
    """
    sides: dict[str, list[Sample]] = {split: [] for split in SPLITS}
    for split, sample in samples:
        sides[split].append(sample)
    rows = []
    for split, members in sides.items():
        if members:
            name = f"{split}/{unit}.tar"
            index = write_shard(shards / name, members, staging=staging, ready=ready)
            rows.append({"shard": name, "samples": len(members), "bytes": index.num_bytes, "sha256": index.sha256})
    return rows


def read_sides(shards: Path) -> dict[str, list[JudgeExample]]:
    """All examples of each side of the split."""
    folders = {split: shards / split for split in SPLITS}
    return {split: list(Examples(Shards(folder))) if folder.is_dir() else [] for split, folder in folders.items()}


def pairs_of(sides: Mapping[str, Sequence[JudgeExample]], seed: int, *, most: int) -> dict[str, list[RankingPair]]:
    """The ranking pairs of each side, of one kind of source at a time, balanced by task; `most` of one sentence."""
    pairs = {}
    for split, members in sides.items():
        drawn = [ranking_pairs(example for example in members if example.source == source) for source in PATHS]
        pairs[split] = [pair for found in drawn for pair in balance(found, seed, most=most)]
    return pairs
