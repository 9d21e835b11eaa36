"""A judge's examples on disk: a folder of shards for each side of the split, and the ranking pairs among them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from genloop.data.judge.dataset import PATHS, Examples
from genloop.data.judge.examples import SPLITS, JudgeExample, RankingPair, balance, ranking_pairs
from genloop.data.shards import Shards


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
