"""What the reference model says of every pair and mask that a training will use, computed once and kept.

RUN/reference/NAME/00000.npy holds the rows of a fixed slice of keys; ranks compute slices in turn, each appears whole
or not at all, and a resumed run computes only those that lack. The policy's own weights before step 1 are the
reference, or another checkpoint that is loaded before them and freed: one model is in memory at a time.
"""

import io
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import read_array

from genloop.data.order import Order
from genloop.data.pairs.shards import PairShards
from genloop.data.shards import MALFORMED
from genloop.distributed import StopRequested, World
from genloop.models.common.memory import Budget
from genloop.models.showo.model import ShowO
from genloop.reading import read_bytes
from genloop.rundir import write_atomic
from genloop.training.loading import mapped
from genloop.training.objectives.preference.estimator import Estimator
from genloop.training.reductions import largest_over_ranks

log = logging.getLogger(__name__)
Key = tuple[int, int]  # epoch of the masks, row of the pair
Compute = Callable[[Sequence[Key]], np.ndarray]
Tables = Callable[[str, Estimator, PairShards, Sequence[Key]], np.ndarray]
"""Name, estimator, pairs, keys -> what the reference says: (keys, D, 2, W), of the set `TRAIN` sums (keys, D, 2)."""
TRAIN = "train"
_SLICE = 256  # keys of a file


def used_keys(order: Order, num_steps: int, batch_size: int, mask_epochs: int) -> list[Key]:
    """Every (epoch, row) that the steps of a run look at, sorted."""
    found: set[Key] = set()
    for step in range(1, num_steps + 1):
        found.update(keys_of(order, step, batch_size, mask_epochs))
        if len(found) == order.num_samples * mask_epochs:
            break
    return sorted(found)


def keys_of(order: Order, step: int, batch_size: int, mask_epochs: int) -> list[Key]:
    """The pairs of a step, each with the epoch that keys its masks."""
    first = (step - 1) * batch_size
    epochs = [(first + place) // order.num_samples % mask_epochs for place in range(batch_size)]
    return list(zip(epochs, order.rows(step, batch_size), strict=True))


@torch.no_grad()
def estimated(
    estimator: Estimator, model: ShowO, pairs: PairShards, keys: Sequence[Key], rows_per_forward: int
) -> np.ndarray:
    """-> (keys, D, 2, W) float32, by a model as it is."""

    def compute(part: Sequence[Key]) -> Iterator[np.ndarray]:
        found = [pairs.read(row) for _, row in part]
        draws = [estimator.draws_of(pair, row, epoch) for pair, (epoch, row) in zip(found, part, strict=True)]
        rows = mapped(estimator.lay_out(found, draws), lambda tensor: tensor.to(model.device))
        yield from estimator.log_probs(model, rows).float().cpu().numpy()

    was_training = model.training
    model.eval()
    values = Budget(rows_per_forward, "train.rows_per_forward").run(keys, 1, compute)
    model.train(was_training)
    return np.stack(values) if values else np.empty((0, estimator.draws, 2, 0), np.float32)


def tables_in(run: Path, reference: Callable[[], ShowO], rows_per_forward: int, world: World) -> Tables:
    """`Tables` kept in RUN/reference; `reference` gives the model, and is called only where something lacks."""

    def tables(name: str, estimator: Estimator, pairs: PairShards, keys: Sequence[Key]) -> np.ndarray:
        def compute(part: Sequence[Key]) -> np.ndarray:
            values = estimated(estimator, reference(), pairs, part, rows_per_forward)
            return values.sum(3) if name == TRAIN else values

        return stored(run / "reference" / name, keys, compute, world)

    return tables


def empty_tables(name: str, estimator: Estimator, pairs: PairShards, keys: Sequence[Key]) -> np.ndarray:
    """`Tables` of a reference that nobody asks: zeros."""
    found = np.zeros((len(keys), estimator.draws, 2, pairs.num_tokens + 2), np.float32)
    return found.sum(3) if name == TRAIN else found


def stored(folder: Path, keys: Sequence[Key], compute: Compute, world: World) -> np.ndarray:
    """The rows of all keys: read where they are stored, else computed and stored. Called on all ranks alike."""
    slices = [keys[start : start + _SLICE] for start in range(0, len(keys), _SLICE)]
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(world.rank, len(slices), world.world_size):
        if world.stop_requested():
            break
        if _read(folder, number, len(slices[number])) is None:
            stream = io.BytesIO()
            np.save(stream, compute(slices[number]))
            write_atomic(_path(folder, number), stream.getvalue())
    is_stopped = world.stop_requested()
    if largest_over_ranks(is_stopped) if world.world_size > 1 else is_stopped:
        raise StopRequested
    found = [_read(folder, number, len(part)) for number, part in enumerate(slices)]
    if any(part is None for part in found):
        raise OSError(f"{folder}: not readable on rank {world.rank}")
    return np.concatenate([part for part in found if part is not None])


def _path(folder: Path, number: int) -> Path:
    return folder / f"{number:05d}.npy"


def _read(folder: Path, number: int, num_rows: int) -> np.ndarray | None:
    """A slice; None where there is none, or one that is torn."""
    path = _path(folder, number)
    if not path.is_file():
        return None
    try:
        found = read_array(io.BytesIO(read_bytes(path)), allow_pickle=False)
    except MALFORMED as error:
        log.warning("%s: %s; it is computed again", path, " ".join(str(error).split()))
        return None
    return found if len(found) == num_rows else None
