"""Leases: whose process lives, by whatever clock and whatever /proc shows."""

import json
import os
import time

import pytest

from genloop.lease import Lease, living


@pytest.mark.parametrize(("silent_for", "number"), [(0, 1), (60, 0)])
def test_who_lives_is_told_by_the_clock_of_the_file_server(tmp_path, monkeypatch, silent_for, number):
    assert living(tmp_path / "leases", tmp_path / "nowhere") == 0
    (tmp_path / "leases").mkdir()
    (tmp_path / "leases/00000").touch()
    then = time.time() - silent_for
    os.utime(tmp_path / "leases/00000", (then, then))
    ahead = time.time() + 3600
    monkeypatch.setattr(time, "time", lambda: ahead)  # this machine's clock
    assert living(tmp_path / "leases", tmp_path) == number


@pytest.mark.parametrize(("hidden", "taken"), [(True, False), (False, True)])
def test_a_process_of_another_user_that_proc_hides_is_not_taken_for_gone(tmp_path, monkeypatch, hidden, taken):
    theirs, ours = (Lease(tmp_path / "lease", tmp_path, name) for name in ("theirs", "ours"))
    assert theirs.acquire()
    body = json.loads((tmp_path / "lease").read_text())
    (tmp_path / "lease").write_text(json.dumps(body | {"pid": 2**22 + 1, "start": "1"}))  # which /proc does not show

    def kill(pid: int, number: int) -> None:
        assert (pid, number) == (2**22 + 1, 0)
        raise PermissionError if hidden else ProcessLookupError

    monkeypatch.setattr(os, "kill", kill)
    assert ours.acquire() == taken
