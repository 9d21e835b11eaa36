"""The run folder: atomic files, hashes, fingerprints."""

import errno
import fcntl
import json
import os
import resource
import stat
from pathlib import Path

import pytest
import torch

from genloop import environment
from genloop.hashing import sha256_tree
from genloop.rundir import (
    RunError,
    append_metrics,
    await_run,
    check_run,
    fingerprint_of,
    read_run,
    start_run,
    write_atomic,
    write_new,
)


def test_a_file_that_cannot_be_written_whole_leaves_the_old_one(tmp_path):
    target = tmp_path / "a.bin"
    write_atomic(target, b"old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))  # what a full disk does: the write stops half-way
    try:
        with pytest.raises(OSError, match="File too large"):
            write_atomic(target, b"x" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]


def test_the_hash_of_a_folder_knows_names_and_contents_but_not_its_place(tmp_path):
    for place in ("a", "b"):
        (tmp_path / place / "inner").mkdir(parents=True)
        (tmp_path / place / "inner" / "x").write_text("1")
    assert sha256_tree(tmp_path / "a") == sha256_tree(tmp_path / "b")
    (tmp_path / "b" / "inner" / "x").rename(tmp_path / "b" / "inner" / "y")
    assert sha256_tree(tmp_path / "a") != sha256_tree(tmp_path / "b")


def test_the_hash_of_a_folder_knows_what_lies_behind_links_to_folders(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "x").write_text("1")
    folder = tmp_path / "folder"
    (folder / "inner").mkdir(parents=True)
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "inner" / "up").symlink_to(folder)  # without end
    before = sha256_tree(folder)
    (tmp_path / "elsewhere" / "x").write_text("2")
    assert sha256_tree(folder) != before
    (tmp_path / "elsewhere" / "x").write_text("1")
    (folder / "linked").unlink()
    (tmp_path / "elsewhere").rename(folder / "linked")
    assert sha256_tree(folder) == before


def test_a_refused_run_that_holds_no_results_says_so(tmp_path):
    first, second = (fingerprint_of("generate", {"seed": seed}, {}) for seed in (0, 1))
    start_run(tmp_path, "seed: 0\n", first, {})
    (tmp_path / "rows").mkdir()
    with pytest.raises(RunError, match=r"holds no results$"):
        check_run(tmp_path, second)
    (tmp_path / "rows" / "00000.jsonl").touch()
    with pytest.raises(RunError, match=r"start from that config$"):
        check_run(tmp_path, second)


def test_one_of_many_creates_a_file_whether_or_not_there_are_hard_links(tmp_path, monkeypatch):
    assert write_new(tmp_path / "a", b"1")
    assert not write_new(tmp_path / "a", b"2")

    def refuse(source: Path, target: Path) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM), source)

    monkeypatch.setattr(os, "link", refuse)
    assert write_new(tmp_path / "b", b"1")
    assert not write_new(tmp_path / "b", b"2")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"1", "b": b"1"}


def test_a_link_whose_answer_was_lost_on_the_way_is_a_link(tmp_path, monkeypatch):
    link = os.link

    def lose(source: Path, target: Path) -> None:  # as an NFS client that asks a second time
        link(source, target)
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target)

    monkeypatch.setattr(os, "link", lose)
    assert write_new(tmp_path / "a", b"1")
    monkeypatch.setattr(Path, "exists", lambda path: False)  # another caller was faster
    assert not write_new(tmp_path / "a", b"2")
    assert (tmp_path / "a").read_bytes() == b"1" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_rows_are_appended_on_a_file_system_without_locks(tmp_path, monkeypatch, number):
    def refuse(file: object, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    append_metrics(tmp_path, {"step": 1})
    append_metrics(tmp_path, {"step": 2})
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step":1}\n{"step":2}\n'


@pytest.mark.parametrize(("number", "fails"), [(errno.EINVAL, False), (errno.EIO, True)])
def test_a_file_system_that_cannot_sync_folders_will_do_and_one_that_fails_is_told(
    tmp_path, monkeypatch, number, fails
):
    fsync = os.fsync

    def refuse(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refuse)
    if fails:
        with pytest.raises(OSError, match=os.strerror(number)):
            write_atomic(tmp_path / "a", b"1")
    else:
        write_atomic(tmp_path / "a", b"1")
    assert (tmp_path / "a").read_bytes() == b"1"


def test_a_start_that_was_killed_half_way_goes_on(tmp_path):
    fingerprint = fingerprint_of("generate", {"seed": 0}, {})
    (tmp_path / "config.yaml").write_text("seed: 0\n")
    check_run(tmp_path, fingerprint)
    start_run(tmp_path, "seed: 0\n", fingerprint, {})
    (tmp_path / "config.yaml").unlink()
    start_run(tmp_path, "seed: 0\n", fingerprint, {})
    assert {path.name for path in tmp_path.iterdir()} == {"config.yaml", "env.json", "logs", "run.json"}


def test_the_second_of_two_starts_with_different_configs_is_refused(tmp_path):
    first, second = (fingerprint_of("generate", {"seed": seed}, {}) for seed in (0, 1))
    check_run(tmp_path, first)
    check_run(tmp_path, second)  # nothing is there yet
    start_run(tmp_path, "seed: 0\n", first, {})
    with pytest.raises(RunError, match=r"seed=0, .*seed=1"):
        start_run(tmp_path, "seed: 1\n", second, {})
    assert (tmp_path / "config.yaml").read_text() == "seed: 0\n"


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"job": "generate"}'])
def test_a_damaged_fingerprint_is_refused_in_one_line(tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(RunError, match=r"run\.json is damaged"):
        check_run(tmp_path, fingerprint_of("generate", {}, {}))


def test_a_run_resumes_with_its_own_config_only(tmp_path):
    run = tmp_path / "run"
    fingerprint = fingerprint_of("generate", {"search.n": 20, "seed": 0}, {"prompts": "aa"})
    check_run(run, fingerprint)
    assert not run.exists()
    start_run(run, "seed: 0\n", fingerprint, environment.describe())
    check_run(run, fingerprint)
    with pytest.raises(RunError, match=r"search\.n=20, .*search\.n=8"):
        check_run(run, fingerprint_of("generate", {"search.n": 8, "seed": 0}, {"prompts": "aa"}))
    with pytest.raises(RunError, match="another content of `prompts`"):
        check_run(run, fingerprint_of("generate", {"search.n": 20, "seed": 0}, {"prompts": "bb"}))
    with pytest.raises(RunError, match="job generate, this is evaluate"):
        check_run(run, fingerprint_of("evaluate", {"search.n": 20, "seed": 0}, {"prompts": "aa"}))
    assert read_run(run)["keys"] == {"search.n": 20, "seed": 0}


def test_a_rank_waits_for_the_fingerprint_of_rank_0_and_compares_its_own_keys(tmp_path):
    with pytest.raises(TimeoutError, match=r"rank 0 .*run\.json"):
        await_run(tmp_path, "generate", {"seed": 0}, seconds=0.2)
    fingerprint = fingerprint_of("generate", {"seed": 0}, {"prompts": "aa"})
    start_run(tmp_path, "seed: 0\n", fingerprint, {})
    assert await_run(tmp_path, "generate", {"seed": 0}) == fingerprint
    with pytest.raises(RunError, match=r"seed=0, .*seed=1"):
        await_run(tmp_path, "generate", {"seed": 1})
    with pytest.raises(RunError, match="job generate, this is evaluate"):
        await_run(tmp_path, "evaluate", {"seed": 0})


def test_provenance_names_code_packages_and_hardware(tmp_path):
    start_run(tmp_path, "seed: 0\n", fingerprint_of("generate", {}, {}), environment.describe())
    found = json.loads((tmp_path / "env.json").read_text())
    assert found["packages"]["torch"].startswith("2.")
    assert found["cpu"]["cores"] >= 1
    assert {"genloop", "git", "python", "gpus", "command", "started"} <= set(found)


@pytest.mark.parametrize(
    ("variables", "matrices", "convolutions"),
    [
        ({}, "ieee", "tf32"),
        ({"TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1"}, "tf32", "tf32"),
        ({"TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1", "NVIDIA_TF32_OVERRIDE": "0"}, "ieee", "ieee"),
    ],
)
def test_provenance_says_how_gpus_multiply_float32(monkeypatch, variables, matrices, convolutions):
    """As torch is set: it takes TF32 for convolutions, of MAGVIT-v2 too, and not for matrices."""
    for name in ("TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "NVIDIA_TF32_OVERRIDE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found = environment.describe()["float32_on_gpus"]
    assert found == {"matrices": matrices, "convolutions": convolutions}
    if not variables:
        backends = torch.backends
        assert backends.cudnn.conv.fp32_precision == "tf32" and not backends.cuda.matmul.allow_tf32


@pytest.mark.parametrize("below", ["", "deep/er"])
def test_an_out_below_a_file_is_refused(tmp_path, below):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"^out: .* is a file"):
        check_run(tmp_path / "file" / below, fingerprint_of("generate", {}, {}))


def test_a_place_without_write_access_is_refused():
    with pytest.raises(RunError, match="cannot write below /proc"):
        check_run(Path("/proc/genloop-run"), fingerprint_of("generate", {}, {}))


def test_results_of_unknown_origin_are_not_overwritten(tmp_path):
    (tmp_path / "rows").mkdir()
    with pytest.raises(RunError, match="holds results but no"):
        check_run(tmp_path, fingerprint_of("generate", {}, {}))


def test_a_torn_last_line_makes_way_for_the_next(tmp_path):
    append_metrics(tmp_path, {"step": 1})
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 2, "lo')
    append_metrics(tmp_path, {"step": 3})
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step":1}\n{"step":3}\n'


def test_metrics_are_appended(tmp_path):
    append_metrics(tmp_path, {"step": 1})
    append_metrics(tmp_path, {"step": 2, "text": "ü"})
    assert (tmp_path / "metrics.jsonl").read_text().splitlines() == ['{"step":1}', '{"step":2,"text":"ü"}']


def test_a_file_that_is_not_ready_does_not_appear(tmp_path):
    def not_ready():
        assert next(tmp_path.glob(".x.*.tmp")).read_bytes() == b"new"  # asked last of all
        raise ValueError("not ready")

    write_atomic(tmp_path / "x", b"old")
    with pytest.raises(ValueError, match="not ready"):
        write_atomic(tmp_path / "x", b"new", ready=not_ready)
    assert (tmp_path / "x").read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1
