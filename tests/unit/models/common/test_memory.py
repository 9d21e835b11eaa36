"""Work that does not fit into memory goes on in smaller batches; other errors stay errors."""

import logging

import pytest
import torch

from genloop.models.common.memory import Budget


def doubled(most: int, error: type[Exception] = torch.OutOfMemoryError, message: str = "CUDA out of memory"):
    """Computes up to `most` numbers at once; says how many came each time."""
    sizes: list[int] = []

    def compute(numbers):
        sizes.append(len(numbers))
        if len(numbers) > most:
            raise error(message)
        return [2 * number for number in numbers]

    return compute, sizes


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (torch.OutOfMemoryError, "anything"),
        (MemoryError, ""),
        (RuntimeError, "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
def test_what_does_not_fit_is_tried_again_in_halves(caplog, error, message):
    compute, sizes = doubled(3, error, message)
    budget = Budget(1000, "pixels_per_forward")
    with caplog.at_level(logging.WARNING):
        assert budget.run(range(10), 100, compute) == [2 * number for number in range(10)]
    assert sizes == [10, 5, 2, 2, 2, 2, 2]
    assert budget.run(range(3), 100, compute) == [0, 2, 4] and sizes[-2:] == [2, 1]
    assert caplog.messages == [
        "out of memory with pixels_per_forward=1000; going on with 500",
        "out of memory with pixels_per_forward=500; going on with 250",
    ]


def test_one_that_does_not_fit_alone_is_an_error_that_says_so():
    compute, sizes = doubled(0)
    with pytest.raises(torch.OutOfMemoryError) as raised:
        Budget(300, "pixels_per_forward").run([1, 2], 100, compute)
    assert sizes == [2, 1]
    (note,) = raised.value.__notes__
    assert note.startswith("pixels_per_forward: 100 does not fit")


def test_other_errors_are_not_tried_again():
    compute, sizes = doubled(0, RuntimeError, "shapes do not match")
    with pytest.raises(RuntimeError, match="shapes do not match"):
        Budget(300, "pixels_per_forward").run([1, 2], 100, compute)
    assert sizes == [2]


def test_a_budget_below_one_takes_one_at_a_time():
    compute, sizes = doubled(9)
    assert Budget(1, "pixels_per_forward").run([], 100, compute) == []
    assert Budget(1, "pixels_per_forward").run([4, 5], 100, compute) == [8, 10] and sizes == [1, 1]


def test_items_of_their_own_sizes_fill_the_budget():
    compute, sizes = doubled(9)
    assert Budget(10, "tokens_per_forward").run([4, 5, 2, 30, 1], int, compute) == [8, 10, 4, 60, 2]
    assert sizes == [2, 1, 1, 1]


def test_what_is_kept_to_save_work_is_given_up_first():
    kept = [1]
    compute, _ = doubled(1)
    assert Budget(10, "tokens_per_forward", kept.clear).run([4, 5], int, compute) == [8, 10]
    assert kept == []
