"""The ledger: claims, takeovers, failures, retries."""

import contextlib
import json
import multiprocessing
import os
import signal
import socket
import time
from pathlib import Path

import pytest

from genloop.distributed import StopRequested, World
from genloop.lease import Lease
from genloop.ledger import Ledger, UnitsFailed, count, finished, plan_units, read_rows
from genloop.rundir import BadInput
from tests.runs import wait_until


def drain(run: Path, units, world=None, **settings) -> list[str]:
    """Work on everything that can be claimed -> names of the units that were done here."""
    done = []
    with Ledger(run, units, world or World(), **settings) as ledger:
        for unit in ledger.claims():
            with ledger.working(unit):
                ledger.complete(unit, [{"item": i} for i in range(unit.start, unit.stop)])
            done.append(unit.name)
    return done


def test_units_cover_every_item_once_whatever_the_size():
    for num_items in (0, 1, 7, 8, 9, 100):
        for size in (1, 3, 8):
            units = plan_units(num_items, size)
            assert [i for unit in units for i in range(unit.start, unit.stop)] == list(range(num_items))
            assert len({unit.name for unit in units}) == len(units)


def test_names_sort_as_the_units_do_also_beyond_five_digits():
    names = [unit.name for unit in plan_units(100_003, 1)]
    assert names == sorted(names)
    assert plan_units(3, 1)[2].name == "00002"


def test_all_units_are_done_once_and_a_second_pass_does_nothing(tmp_path):
    units = plan_units(10, 3)
    assert drain(tmp_path, units) == ["00000", "00001", "00002", "00003"]
    assert drain(tmp_path, units) == []
    assert [row["item"] for row in read_rows(tmp_path)] == list(range(10))
    assert not list((tmp_path / "leases").iterdir())
    assert not list((tmp_path / "tmp").iterdir())


def test_a_living_worker_keeps_its_unit(tmp_path):
    units = plan_units(4, 2)
    with Ledger(tmp_path, units, World(rank=0, world_size=2)) as first:
        claimed = next(first.claims())
        assert drain(tmp_path, units, World(rank=1, world_size=2)) == ["00001"]
        first.complete(claimed, [{"item": 0}, {"item": 1}])
    assert finished(tmp_path) == {"00000", "00001"}


def _claim_and_hang(run: str, ready) -> None:
    with Ledger(Path(run), plan_units(4, 2), World()) as ledger:
        next(ledger.claims())
        ready.set()
        time.sleep(60)


@pytest.mark.parametrize("reaped", [True, False])
def test_the_unit_of_a_killed_worker_is_taken_over_at_once(tmp_path, reaped):
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    worker = context.Process(target=_claim_and_hang, args=(str(tmp_path), ready))
    worker.start()
    assert ready.wait(30)
    assert count(tmp_path, 2).leased == 1
    os.kill(worker.pid, signal.SIGKILL)
    if reaped:
        worker.join()
    else:  # a container without an init process keeps its dead as zombies
        stat = Path(f"/proc/{worker.pid}/stat")
        wait_until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "Z")
    assert drain(tmp_path, plan_units(4, 2)) == ["00000", "00001"]
    worker.join()


def _paint_until_lost(run: str) -> None:
    """A worker that is suspended in the midst of its unit. Ends with 3 where the unit stays its own."""
    with Ledger(Path(run), plan_units(2, 2), World()) as ledger:
        for unit in ledger.claims():
            with ledger.working(unit):
                ledger.write(ledger.run / "images" / "0.png", b"first")
                os.kill(os.getpid(), signal.SIGSTOP)
                ledger.write(ledger.run / "images" / "0.png", b"first")
                raise SystemExit(3)


def test_a_worker_that_was_suspended_leaves_a_unit_that_another_has_finished(tmp_path):
    worker = multiprocessing.get_context("spawn").Process(target=_paint_until_lost, args=(str(tmp_path),))
    worker.start()
    image, lease = tmp_path / "images" / "0.png", tmp_path / "leases" / "00000"
    wait_until(lambda: Path(f"/proc/{worker.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")
    assert drain(tmp_path, plan_units(2, 2), World(rank=1)) == []  # silent for a moment only
    os.utime(lease, (time.time() - 61, time.time() - 61))
    with Ledger(tmp_path, plan_units(2, 2), World(rank=1), lease_timeout=60) as ledger:
        for unit in ledger.claims():
            ledger.write(image, b"second")
            ledger.complete(unit, [{"item": 0}, {"item": 1}])
    before = image.stat().st_ino, (tmp_path / "rows" / "00000.jsonl").stat().st_ino
    os.kill(worker.pid, signal.SIGCONT)
    worker.join(60)
    assert worker.exitcode == 0
    assert image.read_bytes() == b"second"
    assert (image.stat().st_ino, (tmp_path / "rows" / "00000.jsonl").stat().st_ino) == before
    assert [row["item"] for row in read_rows(tmp_path)] == [0, 1] and not list((tmp_path / "failed").iterdir())


def another_takes(ledger, unit):
    """Another worker takes the unit over as it would after a long silence -> its lease."""
    lease = Lease(ledger.run / "leases" / unit.name, ledger.staging, "other", timeout=60)
    os.utime(lease.path, (0, 0))
    while not lease.acquire():  # a sign of life came in between
        os.utime(lease.path, (0, 0))
    assert lease.is_held()
    return lease


@pytest.mark.parametrize("step", ["write", "complete", "fail", "hang"])
def test_a_lost_unit_is_neither_written_nor_failed_nor_given_back(tmp_path, step, monkeypatch, caplog):
    monkeypatch.setattr("genloop.ledger.HEARTBEAT", 0.01)
    counted, silent = [], int(time.time()) - 5
    with Ledger(tmp_path, plan_units(1, 1), World()) as ledger:
        for unit in ledger.claims():
            with ledger.working(unit):
                ledger.advance(1)
                theirs = another_takes(ledger, unit)
                os.utime(theirs.path, (silent, silent))
                time.sleep(0.05 * (step == "hang"))
                if step == "fail":
                    raise FileNotFoundError("a temporary file that the other has tidied up")
                if step == "write":
                    ledger.write(tmp_path / "images" / "0.png", b"")
                ledger.complete(unit, [{}])
                counted.append(unit.name)
    assert "unit 00000 was taken over" in caplog.text and counted == []
    assert theirs.is_held() and theirs.path.stat().st_mtime == silent  # neither released nor kept alive
    assert not finished(tmp_path) and not list((tmp_path / "failed").iterdir()) and not list(tmp_path.glob("*/*.png"))
    status = json.loads((tmp_path / "logs" / f"{World().name}.status.json").read_text())
    assert (status["items"], status["units"]) == (0, 0)


def test_a_row_file_that_is_there_is_never_replaced(tmp_path):
    with Ledger(tmp_path, plan_units(1, 1), World()) as ledger:
        for unit in ledger.claims():
            with ledger.working(unit):
                (tmp_path / "rows" / "00000.jsonl").write_text('{"item": "theirs"}\n')
                ledger.complete(unit, [{"item": "ours"}])
    assert [row["item"] for row in read_rows(tmp_path)] == ["theirs"]
    assert not list((tmp_path / "leases").iterdir())


def test_a_lease_is_given_back_by_its_owner_alone(tmp_path):
    ours, theirs = (Lease(tmp_path / "lease", tmp_path, name) for name in ("ours", "theirs"))
    ours.release()  # none is held: nothing happens
    assert ours.acquire() and not theirs.acquire() and not theirs.is_held()
    theirs.release()
    assert ours.is_held() and theirs.holder() == "ours"
    ours.release()
    assert not ours.is_held() and not ours.path.exists() and theirs.acquire()


def full_folder(path):
    path.mkdir()
    (path / "file").write_text("")


ODD_FILES = {  # what lies where a small JSON object of the ledger should be
    "empty": lambda path: path.write_text(""),
    "torn": lambda path: path.write_text("{"),
    "list": lambda path: path.write_text("[]"),
    "without a process": lambda path: path.write_text('{"worker": "x"}'),
    "process of text": lambda path: path.write_text('{"pid": "../1\\u0000", "start": []}'),
    "no UTF-8": lambda path: path.write_bytes(b"\xff\xfe\x00"),
    "NULs": lambda path: path.write_bytes(bytes(5000)),
    "deep": lambda path: path.write_text("[" * 100_000),
    "huge number": lambda path: path.write_text('{"pid": ' + "9" * 5000 + "}"),
    "folder": Path.mkdir,
    "full folder": full_folder,
    "pipe": os.mkfifo,
    "dangling link": lambda path: path.symlink_to("nowhere"),
    "socket": lambda path: socket.socket(socket.AF_UNIX).bind(os.path.relpath(path)),
}


@pytest.mark.parametrize("make", ODD_FILES.values(), ids=ODD_FILES)
def test_what_is_no_lease_is_taken_over_as_one_that_a_crash_has_torn(tmp_path, make):
    units = plan_units(2, 2)
    lease = tmp_path / "leases" / "00000"
    lease.parent.mkdir()
    make(lease)
    assert drain(tmp_path, units) == []  # it may have been created just now
    assert Lease(lease, tmp_path / "tmp", "x").holder() in ("unknown", "x")
    os.utime(lease, (time.time() - 11, time.time() - 11), follow_symlinks=False)
    assert drain(tmp_path, units) == ["00000"]
    assert not list((tmp_path / "leases").iterdir()) and not list((tmp_path / "tmp").iterdir())


def test_ranks_begin_in_parts_of_their_own_and_pass_over_what_others_hold_until_nothing_else_is_left(tmp_path):
    units = plan_units(8, 1)
    ledgers = [Ledger(tmp_path, units, World(rank, 4)) for rank in range(4)]
    with contextlib.ExitStack() as open_ledgers:
        walks = [open_ledgers.enter_context(ledger).claims() for ledger in ledgers]
        assert [next(walk).name for walk in walks] == ["00000", "00002", "00004", "00006"]
        ledgers[0].complete(units[0], [{}])
        assert next(walks[0]).name == "00001"
        ledgers[0].complete(units[1], [{}])
        assert next(walks[0]).name == "00003"  # one miss, then no look at 00004 and 00006
        ledgers[0].complete(units[3], [{}])
        ledgers[3]._release()  # as a worker that stops
        assert next(walks[0]).name == "00005"


@pytest.mark.parametrize("body", ['{"pid": 1, "host": "elsewhere"}', "torn"])
@pytest.mark.parametrize("shift", [-61, 61])
def test_a_lease_without_a_sign_of_life_for_its_time_out_is_taken_over_wherever_the_clock_went(tmp_path, body, shift):
    lease = tmp_path / "leases" / "00000"
    lease.parent.mkdir()
    lease.write_text(body)
    assert drain(tmp_path, plan_units(2, 2)) == []
    os.utime(lease, (time.time() + shift, time.time() + shift))
    assert drain(tmp_path, plan_units(2, 2), lease_timeout=60) == ["00000"]


@pytest.mark.parametrize("place", ["failed/00000.json", "tmp/x"])
def test_what_lies_in_the_place_of_a_file_of_the_ledger_does_not_stop_later_runs(tmp_path, place):
    (tmp_path / place).parent.mkdir()
    full_folder(tmp_path / place)
    assert drain(tmp_path, plan_units(2, 2), retry_failed=True) == ["00000"]
    assert drain(tmp_path, plan_units(2, 2)) == [] and not (tmp_path / place).exists()


@pytest.mark.parametrize("folder", ["rows", "checksums", "leases", "failed", "tmp", "logs"])
def test_a_file_in_the_place_of_a_folder_of_the_ledger_is_named(tmp_path, folder):
    (tmp_path / folder).write_text("")
    with pytest.raises(BadInput, match=f"{tmp_path}/{folder}: is no folder"):
        drain(tmp_path, plan_units(1, 1))


@pytest.mark.parametrize("text", ["", "[" * 100_000, "\0", '{"attempts": "3"}', '{"attempts": 1e999}', "[3]"])
def test_a_failure_record_that_a_crash_has_torn_counts_from_one(tmp_path, text):
    (tmp_path / "failed").mkdir()
    (tmp_path / "failed" / "00000.json").write_text(text)
    with pytest.raises(ZeroDivisionError), Ledger(tmp_path, plan_units(1, 1), World(), retry_failed=True) as ledger:
        for unit in ledger.claims():
            with ledger.working(unit):
                ledger.complete(unit, [{"x": 1 / unit.start}])
    assert json.loads((tmp_path / "failed" / "00000.json").read_text())["attempts"] == 1


def test_a_failure_that_cannot_be_recorded_is_still_the_one_that_is_told(tmp_path):
    with pytest.raises(ZeroDivisionError) as caught, Ledger(tmp_path, plan_units(1, 1), World()) as ledger:
        for unit in ledger.claims():
            (tmp_path / "failed").rmdir()
            with ledger.working(unit):
                ledger.complete(unit, [{"x": 1 / unit.start}])
    assert "not recorded: No such file or directory" in caught.value.__notes__
    assert not list((tmp_path / "leases").iterdir())


def test_the_heartbeat_outlives_a_run_folder_that_is_out_of_reach(tmp_path, monkeypatch):
    monkeypatch.setattr("genloop.ledger.HEARTBEAT", 0.01)
    with Ledger(tmp_path, plan_units(1, 1), World()) as ledger:
        unit = next(ledger.claims())
        lease = tmp_path / "leases" / unit.name
        for folder in ("leases", "logs"):
            (tmp_path / folder).rename(tmp_path / f"{folder}-away")
            (tmp_path / folder).write_text("")  # ENOTDIR, as a file server may answer anything
        time.sleep(0.1)
        for folder in ("leases", "logs"):
            (tmp_path / folder).unlink()
            (tmp_path / f"{folder}-away").rename(tmp_path / folder)
        os.utime(lease, (0, 0))
        wait_until(lambda: lease.stat().st_mtime != 0)
        ledger.complete(unit, [{}])
    assert finished(tmp_path) == {"00000"}


def test_a_silent_worker_on_another_machine_loses_its_unit_after_the_timeout(tmp_path):
    units = plan_units(2, 2)
    with Ledger(tmp_path, units, World()) as ledger:
        next(ledger.claims())
        lease = tmp_path / "leases" / "00000"
        owner = json.loads(lease.read_text()) | {"host": "elsewhere"}
    lease.write_text(json.dumps(owner))
    assert drain(tmp_path, units, lease_timeout=60) == []
    os.utime(lease, (time.time() - 61, time.time() - 61))
    assert drain(tmp_path, units, lease_timeout=60) == ["00000"]


def test_a_failed_unit_keeps_its_reason_and_waits_for_retry_failed(tmp_path):
    units = plan_units(3, 1)
    with pytest.raises(ZeroDivisionError) as caught, Ledger(tmp_path, units, World()) as ledger:
        for unit in ledger.claims():
            with ledger.working(unit):
                ledger.complete(unit, [{"x": 1 / (unit.start - 1)}])
    assert "rank 0, unit 00001" in caught.value.__notes__[0]
    record = json.loads((tmp_path / "failed" / "00001.json").read_text())
    assert record["attempts"] == 1
    assert record["reason"] == "ZeroDivisionError: division by zero"
    assert "Traceback" in record["traceback"]
    with pytest.raises(UnitsFailed, match=r"1 of 3 .*00001.*retry_failed"):
        drain(tmp_path, units)
    assert finished(tmp_path) == {"00000", "00002"}
    assert drain(tmp_path, units, retry_failed=True) == ["00001"]
    assert count(tmp_path, 3).failed == 0


def test_a_failed_unit_that_another_worker_tries_again_has_not_failed_the_run(tmp_path):
    units = plan_units(2, 1)
    (tmp_path / "failed").mkdir()
    (tmp_path / "failed" / "00000.json").write_text('{"attempts": 1}')
    with Ledger(tmp_path, units, World(rank=0, world_size=2), retry_failed=True) as first:
        unit = next(first.claims())
        assert drain(tmp_path, units, World(rank=1, world_size=2), retry_failed=True) == ["00001"]
        first.complete(unit, [{"item": 0}])
    assert finished(tmp_path) == {"00000", "00001"}


def test_any_worker_may_spend_the_attempts_that_are_left(tmp_path):
    units = plan_units(2, 1)
    (tmp_path / "failed").mkdir()
    (tmp_path / "failed" / "00000.json").write_text('{"attempts": 1}')
    (tmp_path / "failed" / "00001.json").write_text('{"attempts": 2}')
    with pytest.raises(UnitsFailed, match=r"1 of 2 units failed \(00001\)"):
        drain(tmp_path, units, max_attempts=2)
    assert finished(tmp_path) == {"00000"}


def test_a_unit_that_another_worker_gave_up_meanwhile_is_not_tried_once_more(tmp_path):
    units = plan_units(2, 1)
    with pytest.raises(UnitsFailed), Ledger(tmp_path, units, World()) as ledger:
        for unit in ledger.claims():  # both were free when it looked
            (tmp_path / "failed" / "00001.json").write_text('{"attempts": 1}')
            ledger.complete(unit, [{"item": 0}])
    assert finished(tmp_path) == {"00000"} and not list((tmp_path / "leases").iterdir())


def test_attempts_are_used_up_before_the_run_stops(tmp_path):
    units, calls = plan_units(1, 1), []
    with Ledger(tmp_path, units, World(), max_attempts=3) as ledger:
        for unit in ledger.claims():
            with ledger.working(unit):
                calls.append(unit.name)
                if len(calls) < 3:
                    raise OSError("flaky")
                ledger.complete(unit, [{}])
    assert len(calls) == 3
    assert finished(tmp_path) == {"00000"}


def test_a_stop_request_gives_the_unit_back(tmp_path):
    world = World()
    with pytest.raises(StopRequested), Ledger(tmp_path, plan_units(2, 1), world) as ledger:
        for unit in ledger.claims():
            with ledger.working(unit):
                world.request_stop()
                world.check_stop()
    assert not list((tmp_path / "leases").iterdir())
    assert finished(tmp_path) == set()


def test_the_lease_of_a_worker_that_was_killed_behind_its_last_file_goes_with_the_run(tmp_path):
    units = plan_units(2, 1)
    assert drain(tmp_path, units) == ["00000", "00001"]
    (tmp_path / "leases" / "00000").write_text('{"pid": 1, "host": "elsewhere"}')
    assert drain(tmp_path, units) == []
    assert list((tmp_path / "leases").iterdir()) == []


def test_a_ctrl_c_while_a_lease_is_given_back_leaves_none(tmp_path, monkeypatch):
    calls, release = [], Lease.release

    def interrupted(self):
        calls.append(self)
        if len(calls) == 1:
            raise KeyboardInterrupt
        release(self)

    monkeypatch.setattr(Lease, "release", interrupted)
    with pytest.raises(KeyboardInterrupt), Ledger(tmp_path, plan_units(2, 1), World()) as ledger:
        for unit in ledger.claims():
            ledger.complete(unit, [{"item": 0}])
    assert finished(tmp_path) == {"00000"} and not list((tmp_path / "leases").iterdir())
