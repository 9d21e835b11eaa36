"""Recordings that are named are the ones that are used: a wrong path fails, it does not pass on the samples."""

import os
from pathlib import Path

import pytest

from tests.goldens.roots import ROOT, SAMPLES, golden_paths, golden_roots


@pytest.mark.parametrize("holds", ["nothing", "other things"])
def test_a_named_folder_without_recordings_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, holds: str
) -> None:
    root = tmp_path / "goldens"
    if holds == "other things":
        (root / "geneval").mkdir(parents=True)
    monkeypatch.setenv("GENLOOP_GOLDENS", os.pathsep.join([str(SAMPLES), str(root)]))
    with pytest.raises(FileNotFoundError, match=f"{root} holds no recordings"):
        golden_roots()


def test_named_folders_stand_alone_but_for_the_kinds_that_they_lack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "geneval" / "any" / "geometry_own.jsonl.gz"
    own.parent.mkdir(parents=True)
    own.touch()
    monkeypatch.setenv("GENLOOP_GOLDENS", str(tmp_path))
    assert golden_paths("geneval/**/geometry*.jsonl.gz") == [own]
    assert golden_paths("showo/**/schedules.json") == [SAMPLES / "showo" / "common" / "schedules.json"]


def test_without_a_name_the_samples_are_always_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GENLOOP_GOLDENS", raising=False)
    assert golden_roots()[0] == SAMPLES == ROOT / "tests" / "data"
