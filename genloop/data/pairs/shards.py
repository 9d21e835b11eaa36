"""Preference pairs on disk: a folder of shards as a sequence of pairs, all of one image tokenizer and one length."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from genloop.data.pairs.pair import NEEDED, CodeSpace, Pair, from_sample
from genloop.data.shards import Shards


class PairShards:
    """The pairs of a folder of shards, read when they are asked for; processes may share one.

    Opening reads, of each shard, one pair of every size of codes that occurs; every pair is checked when it is read.
    `num_codes`, `num_tokens` and `tokenizer` (sha256 of the image tokenizer's folder) are those that the set was made
    with; given, they are what it has to have. FileNotFoundError or ValueError in one line that names shard and key: no
    shards, an empty or torn one, codes outside of the codebook, pairs of another tokenizer or of another length.
    `shuffled_by`: a seed that decides by chance which side of a pair is read as the chosen one, for controls.
    """

    def __init__(
        self,
        source: Path,
        *,
        num_codes: int | None = None,
        num_tokens: int | None = None,
        tokenizer: str | None = None,
        shuffled_by: int | None = None,
    ) -> None:
        self.shards, self.shuffled_by = Shards(source), shuffled_by
        first, codebook = from_sample(self.shards[0])
        self._name = self.shards[0].name
        self.num_tokens, self._codebook = len(first.chosen), codebook
        self._check_needed(num_codes, num_tokens, tokenizer)
        self._check_first_ones()

    @property
    def num_codes(self) -> int:
        """Codes of the image tokenizer."""
        return self._codebook.num_codes

    @property
    def tokenizer(self) -> str:
        """sha256 of the image tokenizer's folder, as `genloop.hashing.sha256_tree` gives it."""
        return self._codebook.tokenizer

    @property
    def sizes(self) -> list[int]:
        """How many pairs each shard has."""
        return self.shards.sizes

    def __len__(self) -> int:
        return len(self.shards)

    def __getitem__(self, row: int) -> Pair:
        return self.read(row)

    def __iter__(self) -> Iterator[Pair]:
        return (self.read(row) for row in range(len(self)))

    def read(self, row: int) -> Pair:
        """One pair; ValueError names its shard and key."""
        sample = self.shards.read(row)
        pair, codebook = from_sample(sample)
        if codebook != self._codebook:
            raise ValueError(_other_codebook(sample.name, codebook, self._codebook, self._name))
        if len(pair.chosen) != self.num_tokens:
            raise ValueError(f"{sample.name}: {len(pair.chosen)} codes a side, {self._name} has {self.num_tokens}")
        if self.shuffled_by is not None and np.random.default_rng([self.shuffled_by, row]).integers(2):
            return pair.swapped()
        return pair

    def name(self, row: int) -> str:
        """What messages call a pair: its shard and key."""
        return self.shards.read(row, ()).name

    def digest(self) -> str:
        """One sha256 over all shards; ValueError when one is not what its index says."""
        return self.shards.digest()

    def _check_needed(self, num_codes: int | None, num_tokens: int | None, tokenizer: str | None) -> None:
        if num_codes is not None and num_codes != self.num_codes:
            raise ValueError(f"{self._name}: codes of a tokenizer with {self.num_codes} codes, needed are {num_codes}")
        if tokenizer is not None and tokenizer != self.tokenizer:
            raise ValueError(
                f"{self._name}: pairs made by another image tokenizer (sha256 {self.tokenizer[:12]}, needed is "
                f"{tokenizer[:12]}); name the one that they were made with, or build the pairs again"
            )
        if num_tokens is not None and num_tokens != self.num_tokens:
            raise ValueError(f"{self._name}: {self.num_tokens} codes a side, needed are {num_tokens}")

    def _check_first_ones(self) -> None:
        """A field that a sample lacks anywhere; a type or shape that a whole shard has."""
        sizes = {field: self.shards.column(field)["size"] for field in NEEDED}
        rows = np.flatnonzero(np.any([column < 0 for column in sizes.values()], axis=0))[:1].tolist()
        start = 0
        for count in self.sizes:
            part = np.stack([sizes[field][start : start + count] for field in NEEDED if field.endswith(".npy")])
            _, first = np.unique(part, axis=1, return_index=True)
            rows += (start + first).tolist()
            start += count
        for row in sorted(rows):
            self.read(row)


def _other_codebook(name: str, found: CodeSpace, expected: CodeSpace, beside: str) -> str:
    return (
        f"{name}: pairs made by another image tokenizer ({found.num_codes} codes, sha256 {found.tokenizer[:12]}) than "
        f"{beside} ({expected.num_codes} codes, sha256 {expected.tokenizer[:12]}); keep them in folders of their own"
    )
