"""What threads prepare side by side is finished and kept in order; an error stops what stands behind it."""

import threading
import time
from functools import partial

import pytest

from genloop.in_order import InOrder


def test_results_are_finished_and_kept_in_order_in_the_thread_that_asks():
    kept, finished, threads = [], [], set()

    def prepare(number):
        time.sleep(0.002 * (number % 3 == 0))  # the first ones are slow
        threads.add(threading.current_thread())
        return number

    def finish(number):
        finished.append(number)
        return number, threading.current_thread()

    def keep(result):
        kept.append(result[0])
        assert threading.current_thread() is threading.main_thread() is not result[1]

    with InOrder(keep) as work:
        for number in range(40):
            work.submit(partial(prepare, number), finish)
            assert number - len(kept) <= 6, "few results wait, however many are asked for"
    assert kept == finished == list(range(40)) and len(threads) > 1


@pytest.mark.parametrize("part", ["prepare", "finish"])
def test_the_first_error_is_raised_and_nothing_behind_it_is_finished(part):
    kept, finished = [], []

    def fail(number, where):
        if number == 5 and where == part:
            raise LookupError(where)
        return number

    def finish(number):
        finished.append(fail(number, "finish"))
        return number

    with pytest.raises(LookupError, match=part), InOrder(kept.append) as work:
        for number in range(40):
            work.submit(partial(fail, number, "prepare"), finish)
    assert kept == finished == [0, 1, 2, 3, 4]


def test_an_error_of_the_caller_gives_up_what_has_not_begun():
    gate, finished = threading.Event(), []

    class Stop(BaseException):
        pass

    with pytest.raises(Stop), InOrder(finished.append) as work:
        for number in range(6):
            work.submit(gate.wait, lambda _, number=number: number)
        threading.Timer(0.05, gate.set).start()
        raise Stop
    assert finished == []
