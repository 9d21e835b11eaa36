"""The order of training samples: each once an epoch, block by block, the same whenever it is asked."""

import numpy as np
import pytest

from genloop.data.order import Order

SIZES = [7, 3, 0, 12, 5, 9, 1, 40, 6]  # one shard without samples, one larger than two blocks
BLOCK = 10


def order(sizes: list[int] = SIZES, seed: int = 3, block: int = BLOCK) -> Order:
    return Order(sizes, seed, block=block)


def epochs(found: Order, num_epochs: int) -> list[list[int]]:
    return [found.rows(epoch, sum(SIZES)) for epoch in range(1, num_epochs + 1)]


def test_every_sample_comes_once_an_epoch_and_epochs_and_seeds_differ() -> None:
    first, second = epochs(order(), 2)
    assert sorted(first) == sorted(second) == list(range(sum(SIZES)))
    assert first != second != epochs(order(seed=4), 2)[0]


@pytest.mark.parametrize("block", [BLOCK, 1000])
def test_a_step_does_not_depend_on_what_was_asked_before(block: int) -> None:
    """Resume at any step, in any order, also where a batch spans blocks and epochs."""
    steps = range(1, 60)
    straight, backwards = order(block=block), order(block=block)
    expected = {step: straight.rows(step, 8) for step in steps}
    assert {step: backwards.rows(step, 8) for step in reversed(steps)} == expected
    assert all(order(block=block).rows(step, 8) == expected[step] for step in steps)
    assert [row for step in steps for row in expected[step]] == order(block=block).rows(1, 8 * len(steps))


def test_a_set_of_one_block_is_one_shuffle_of_all_samples() -> None:
    """The function that earlier versions trained with."""
    found = order(SIZES, seed=5, block=sum(SIZES))
    for epoch in range(3):
        expected = np.random.default_rng([5, 0, epoch]).permutation(sum(SIZES))
        assert found.rows(epoch + 1, sum(SIZES)) == expected.tolist()


def test_samples_that_come_close_together_are_of_few_shards() -> None:
    sizes, block = [100] * 50, 1000
    found = Order(sizes, 0, block=block)
    blocks = [found.rows(step, block) for step in (1, 2, 3)]
    shards = [sorted({row // 100 for row in rows}) for rows in blocks]
    assert [len(some) for some in shards] == [10, 10, 10]
    assert shards[0] != sorted(range(10)) and not set(shards[0]) & set(shards[1])
    assert any(a // 100 != b // 100 for a, b in zip(blocks[0], blocks[0][1:]))  # and mixed in a block


def test_memory_is_that_of_a_block() -> None:
    found = Order([10_000] * 1000, 0)
    found.rows(77, 64)
    held = sum(value.nbytes for value in vars(found).values() if isinstance(value, np.ndarray))
    assert len(found._shuffled) < 80_000 and held < 1_000_000


def test_a_set_without_samples_is_refused() -> None:
    with pytest.raises(ValueError, match="without samples"):
        Order([0, 0], 0)
