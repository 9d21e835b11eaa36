"""From the pairs that units have found to the sets that are trained on: duplicates out, tasks balanced, sides split.

Pairs stay in the rows of the run; what is held of each here is what decides, so that there may be many.
"""

import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from genloop.data.judge.examples import SPLITS, split_of
from genloop.data.pairs.pair import CodeSpace, Pair, from_row, to_sample
from genloop.data.pairs.rules import rank_of
from genloop.data.shards import Sample, write_shard


@dataclass(frozen=True, slots=True)
class FoundPair:
    """What of a pair decides whether it is kept, and what is told about it."""

    key: str
    text: str
    tag: str | None
    digest: bytes  # of prompt and codes
    margin: float
    num_differing: int
    verdicts: tuple[bool, bool] | None

    @classmethod
    def of(cls, pair: Pair) -> "FoundPair":
        digest = hashlib.blake2b(f"{pair.prompt}\0".encode(), digest_size=16)
        digest.update(pair.chosen.tobytes())
        digest.update(pair.rejected.tobytes())
        differing = int(pair.differs.sum())
        return cls(pair.key, pair.text, pair.tag, digest.digest(), pair.margin, differing, pair.verdicts)


@dataclass(frozen=True, slots=True)
class Selection:
    """The pairs that are kept, in order, and how many are not."""

    kept: Sequence[FoundPair]
    duplicates: int
    balanced_out: int


def select(found: Iterable[FoundPair], seed: int, *, is_balanced: bool) -> Selection:
    """The first of equal pairs; balanced: of every task as many as the task with the fewest has, by a keyed hash."""
    first: dict[bytes, FoundPair] = {}
    total = 0
    for pair in found:
        total += 1
        first.setdefault(pair.digest, pair)
    kept = list(first.values())
    unlike = len(kept)
    if is_balanced and kept:
        by_task: dict[str | None, list[FoundPair]] = defaultdict(list)
        for pair in sorted(kept, key=lambda pair: rank_of(f"{seed}/balance/{pair.key}")):
            by_task[pair.tag].append(pair)
        fewest = min(map(len, by_task.values()))
        chosen = {pair.key for members in by_task.values() for pair in members[:fewest]}
        kept = [pair for pair in kept if pair.key in chosen]
    return Selection(kept, total - unlike, unlike - len(kept))


def pairs_of(rows: Iterable[Mapping[str, Any]], keys: Collection[str] | None = None) -> Iterator[Pair]:
    """The pairs of the rows of a run in order, all or those with these keys."""
    return (from_row(pair) for row in rows for pair in row["pairs"] if keys is None or pair["key"] in keys)


def split_pairs(kept: Sequence[FoundPair], seed: int, val_share: float) -> dict[str, list[FoundPair]]:
    """{train, val}: a sentence is on one side only."""
    sides: dict[str, list[FoundPair]] = {split: [] for split in SPLITS}
    for pair in kept:
        sides[split_of(pair.text, seed, val_share)].append(pair)
    return sides


def write_sets(
    folder: Path, pairs: Mapping[str, Iterable[Pair]], code_space: CodeSpace, *, per_shard: int, staging: Path
) -> list[dict[str, Any]]:
    """{split: its pairs} -> FOLDER/SPLIT/00000.tar, ..., and a row about each shard; `staging` as in `write_shard`."""
    rows = []
    for split, members in pairs.items():
        samples = (to_sample(pair, code_space) for pair in members)
        for name, part in _parts(samples, per_shard):
            index = write_shard(folder / split / name, part, staging=staging)
            shard = {"shard": f"{split}/{name}", "samples": len(part)}
            rows.append(shard | {"bytes": index.num_bytes, "sha256": index.sha256})
    return rows


def _parts(samples: Iterator[Sample], size: int) -> Iterator[tuple[str, list[Sample]]]:
    number = 0
    while part := list(islice(samples, size)):
        yield f"{number:05d}.tar", part
        number += 1
