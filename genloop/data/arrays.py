"""Arrays of whole numbers in samples (codes, cells): what a .npy field holds is checked before it is used."""

import io

import numpy as np

from genloop.data.shards import MALFORMED, Sample, Shards

CODES, CAPTION = "codes.npy", "txt"


def read_array(sample: Sample, field: str) -> np.ndarray:
    """A .npy field of a sample; ValueError names sample and field."""
    try:
        return np.lib.format.read_array(io.BytesIO(sample.fields[field]), allow_pickle=False)
    except MALFORMED as error:
        raise ValueError(f"{sample.name}: {field}: not an array ({' '.join(str(error).split())})") from None


def read_integers(sample: Sample, field: str, shape: tuple[int | None, ...], below: int | None) -> np.ndarray:
    """A .npy field -> integers of this shape (None: any length) in [0, below); ValueError names sample and field."""
    where, found = f"{sample.name}: {field}", read_array(sample, field)
    if found.dtype.kind not in "iu":
        raise ValueError(f"{where}: of type {found.dtype}, needs integers")
    if len(found.shape) != len(shape) or any(n not in (None, m) for n, m in zip(shape, found.shape)):
        needed = ", ".join("any" if n is None else str(n) for n in shape)
        raise ValueError(f"{where}: of shape {list(found.shape)}, needs [{needed}]")
    if found.size and (found.min() < 0 or (below is not None and found.max() >= below)):
        allowed = "0 or more" if below is None else f"0 to {below - 1}"
        raise ValueError(f"{where}: has values from {found.min()} to {found.max()}, allowed are {allowed}")
    return found


def read_codes(sample: Sample, num_tokens: int | None, num_codes: int | None = None) -> np.ndarray:
    """The image codes of a sample, (n,) int64; ValueError names a sample that lacks them or whose codes are none."""
    if missing := [field for field in (CODES, CAPTION) if field not in sample.fields]:
        raise ValueError(f"{sample.name} lacks {' and '.join(missing)}, which training needs")
    return read_integers(sample, CODES, (num_tokens,), num_codes).astype(np.int64)


def read_caption(sample: Sample) -> str:
    """The text of a sample; ValueError names one that is no UTF-8."""
    try:
        return sample.fields[CAPTION].decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{sample.name}: {CAPTION}: no UTF-8 text ({error.reason})") from None


def check_codes(shards: Shards, num_tokens: int | None, num_codes: int) -> None:
    """Refuse shards that cannot be trained on, before the first step; ValueError names the sample.

    Every sample must have codes and a caption. Of each shard one sample of every size of codes that occurs is read: a
    type or a shape that a whole shard has is found at once, a single bad sample when it is read.
    """
    sizes = shards.column(CODES)["size"]
    lacking = np.flatnonzero((sizes < 0) | (shards.column(CAPTION)["size"] < 0))
    positions, start = lacking[:1].tolist(), 0
    for count in shards.sizes:
        _, first = np.unique(sizes[start : start + count], return_index=True)
        positions += (start + first).tolist()
        start += count
    for position in sorted(positions):
        sample = shards.read(position, (CODES, CAPTION))
        read_codes(sample, num_tokens, num_codes)
        read_caption(sample)
