"""What the reference says is computed once: slices that are there are read, the others computed."""

import numpy as np
import pytest

from genloop.data.order import Order
from genloop.distributed import StopRequested, World
from genloop.training.objectives.preference.reference import keys_of, stored, used_keys

KEYS = [(0, row) for row in range(600)]


class Counting:
    """Values that tell their key; remembers which keys were asked for."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __call__(self, part):
        self.asked += [row for _, row in part]
        return np.array([[[row, epoch]] for epoch, row in part], dtype=np.float32)


def test_slices_are_read_again_and_only_those_that_lack_or_are_torn_computed(tmp_path):
    first, second = Counting(), Counting()
    values = stored(tmp_path, KEYS, first, World())
    assert first.asked == list(range(600)) and values[:, 0, 0].tolist() == list(range(600))
    (tmp_path / "00002.npy").unlink()
    torn = tmp_path / "00000.npy"
    torn.write_bytes(torn.read_bytes()[:-5])
    assert np.array_equal(stored(tmp_path, KEYS, second, World()), values)
    assert second.asked == [*range(256), *range(512, 600)]


def test_a_stop_leaves_whole_slices(tmp_path):
    world = World()

    def until_stopped(part):
        world.request_stop()
        return Counting()(part)

    with pytest.raises(StopRequested):
        stored(tmp_path, KEYS, until_stopped, world)
    assert [file.name for file in tmp_path.iterdir()] == ["00000.npy"]


@pytest.mark.parametrize(("num_steps", "epochs"), [(2, 1), (7, 2), (50, 3)])
def test_the_keys_that_are_used_are_those_of_the_steps(num_steps, epochs):
    order = Order([5, 6], 3)
    used = used_keys(order, num_steps, 4, epochs)
    found = {key for step in range(1, num_steps + 1) for key in keys_of(order, step, 4, epochs)}
    assert used == sorted(found) and max(epoch for epoch, _ in used) < epochs
    assert len(used) <= 11 * epochs
