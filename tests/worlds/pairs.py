"""What tests of preference pairs share: pairs that are made up, and shards of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from genloop.data.pairs.pair import CodeSpace, Pair, to_sample
from genloop.data.shards import write_shard

CODEBOOK = CodeSpace(16, "ab" * 32)
N = 9  # image tokens


def a_pair(number: int = 0, **changes: Any) -> Pair:
    """A pair of N codes below 16 that is a function of its number; every second one is localised."""
    rng = np.random.default_rng(number)
    chosen, rejected = rng.integers(16, size=(2, N))
    rejected[0] = (chosen[0] + 1) % 16
    values: dict[str, Any] = {"tag": "counting", "prompt_index": number, "signal": "judge"}
    if number % 2:
        kept = np.arange(N) >= 5
        rejected = np.where(kept, chosen, rejected)
        steps = np.where(kept, 0, 1 + np.arange(N))
        values |= {"kind": "localised", "kept": kept, "reopened_at": 1, "chosen_steps": steps, "rejected_steps": steps}
    values |= {"metadata": {"prompt": f"a photo of {number} stars"}, "chosen_from": "0-0", "rejected_from": "0-1"}
    pair = {"key": f"{number:05d}", "prompt": f"{number} stars", "chosen": chosen, "rejected": rejected}
    return Pair(**(pair | {"scores": (0.75, 0.25)} | values | changes))


def write_pairs(folder: Path, pairs: Sequence[Pair], *, name: str = "00000", codebook: CodeSpace = CODEBOOK) -> Path:
    """One shard of these pairs -> its folder."""
    write_shard(folder / f"{name}.tar", [to_sample(pair, codebook) for pair in pairs])
    return folder
