"""Checkpoints fetched from a real server that speaks the Hub's protocol: whole, checked, resumed, or one clear line."""

import hashlib
import json
import shutil
import threading
from collections import namedtuple

import pytest

from ckpts.fetch import fetch
from ckpts.resolve import FETCHED_FILE, missing_files, registry, resolve, verify
from tests.worlds.hub import COMMIT, Hub, serving
from tests.worlds.tiny_mask2former import mmdet_file

WEIGHTS = bytes(range(256)) * 2000
FILES = {
    "config.json": b"{}",
    "judge/config.json": b'{"a": 1}',
    "judge/model.safetensors": WEIGHTS,
    "README.md": b"# card",
    "model.bin": WEIGHTS[::-1],
}
ROWS = """
whole:
  folder: whole
  licence: MIT
  source: a/b
  hub: {repository: a/b, only: ["*.json", "*.bin"]}
  files: {config.json: null}
part/judge:
  folder: part/judge
  licence: MIT
  source: a/b, its folder judge
  hub: {repository: a/b, folder: judge}
  files: {config.json: null, model.safetensors: null}
nowhere:
  folder: nowhere
  licence: MIT
  source: c/d
  hub: {repository: c/d}
  files: {config.json: null}
old:
  folder: old
  licence: MIT
  source: a/b
  hub: {repository: a/b, revision: v9}
  files: {config.json: null}
lacking:
  folder: lacking
  licence: MIT
  source: a/b
  hub: {repository: a/b, folder: judge}
  files: {tokenizer.json: null}
shipped:
  folder: shipped
  licence: MIT
  source: shipped
  files: {config.json: null}
"""


@pytest.fixture
def hub(monkeypatch):
    with serving(Hub({"a/b": FILES})) as started:
        monkeypatch.setenv("HF_ENDPOINT", started.address)
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", started.address)
        monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", started.address)
        yield started


@pytest.fixture
def known(tmp_path):
    file = tmp_path / "registry.yaml"
    file.write_text(ROWS)
    return file


def quiet(_: str) -> None:
    pass


def test_a_repository_is_fetched_whole_and_can_be_verified_without_a_network(hub, known):
    folder = fetch("whole", quiet, path=known)
    assert {file.name for file in folder.iterdir()} == {"config.json", "model.bin", "judge", FETCHED_FILE}
    assert (folder / "model.bin").read_bytes() == FILES["model.bin"]
    record = json.loads((folder / FETCHED_FILE).read_text())
    assert (record["repository"], record["revision"]) == ("a/b", COMMIT)
    assert resolve("whole", path=known) == folder and not list(folder.parent.glob("*.part"))
    hub.requests.clear()
    verify("whole", path=known)
    assert fetch("whole", quiet, path=known) == folder
    assert hub.requests == []
    (folder / "model.bin").write_bytes(b"other")
    with pytest.raises(ValueError, match=r"model\.bin"):
        verify("whole", path=known)


def test_a_folder_of_a_repository_becomes_a_folder_of_its_own(hub, known):
    folder = fetch("part/judge", quiet, path=known)
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert {file.name for file in folder.iterdir()} == {"config.json", "model.safetensors", FETCHED_FILE}


def test_what_a_user_put_there_by_hand_is_completed(hub, known, tmp_path):
    (tmp_path / "part/judge").mkdir(parents=True)
    (tmp_path / "part/judge/notes.txt").write_text("mine")
    folder = fetch("part/judge", quiet, path=known)
    assert (folder / "notes.txt").read_text() == "mine"
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS


def test_checkpoint_dir_is_where_they_go_and_are_found(hub, known, tmp_path, monkeypatch):
    monkeypatch.setenv("CHECKPOINT_DIR", str(tmp_path / "disk"))
    assert fetch("whole", quiet, path=known) == tmp_path / "disk/whole"
    assert resolve("whole", path=known) == tmp_path / "disk/whole"


def test_a_broken_connection_is_resumed_where_it_broke(hub, known):
    large = WEIGHTS * 40  # the client writes pieces of 10 MiB
    hub.repositories = {"a/b": FILES | {"judge/model.safetensors": large}}
    hub.cut_after = 15_000_000
    folder = fetch("part/judge", quiet, path=known)
    assert (folder / "model.safetensors").read_bytes() == large
    assert any(path.endswith("model.safetensors") and span for _, path, span in hub.requests)


def test_a_download_that_stands_still_is_started_twice_and_goes_on_later(hub, known):
    hub.stall_after = 300_000
    said: list[str] = []
    with pytest.raises(OSError, match="twice"):
        fetch("part/judge", said.append, stall=1.5, path=known)
    assert sum("nothing arrived" in line for line in said) == 2 and any("without hf-xet" in line for line in said)
    assert missing_files(registry(known)["part/judge"])
    hub.stall_after = None
    assert (fetch("part/judge", quiet, path=known) / "model.safetensors").read_bytes() == WEIGHTS


def test_what_arrives_spoilt_is_refused_and_fetched_again_the_next_time(hub, known):
    hub.spoilt = {"judge/model.safetensors"}
    with pytest.raises(OSError, match=r"judge/model\.safetensors"):
        fetch("part/judge", quiet, path=known)
    assert missing_files(registry(known)["part/judge"])
    hub.spoilt = set()
    assert (fetch("part/judge", quiet, path=known) / "model.safetensors").read_bytes() == WEIGHTS


def test_one_process_downloads_and_the_others_wait(hub, known):
    said: list[str] = []
    threads = [threading.Thread(target=fetch, args=("whole", said.append), kwargs={"path": known}) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gets = [path for method, path, _ in hub.requests if method == "GET" and path.endswith("model.bin")]
    assert len(gets) == 1 and sum("waiting" in line for line in said) == 2


@pytest.mark.parametrize(
    ("name", "says"),
    [("nowhere", "c/d"), ("old", "'v9'"), ("lacking", "tokenizer.json"), ("shipped", "shipped"), ("hole", "whole")],
)
def test_what_cannot_be_fetched_is_one_line(hub, known, name, says):
    with pytest.raises((OSError, ValueError), match=says) as caught:
        fetch(name, quiet, path=known)
    assert "\n" not in str(caught.value) and missing_files(registry(known).get(name, registry(known)["nowhere"]))


def test_a_gated_repository_says_where_to_accept_its_terms(hub, known):
    hub.gated = {"a/b"}
    with pytest.raises(OSError, match=r"terms at http://127\.0\.0\.1:\d+/a/b.*HF_TOKEN"):
        fetch("whole", quiet, path=known)


def test_offline_and_without_a_server_it_says_so(known, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(OSError, match="a/b: cannot be reached"):
        fetch("whole", quiet, path=known)


def test_too_small_a_disk_is_said_before_anything_is_fetched(hub, known, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: namedtuple("Usage", "total used free")(1, 1, 1000))
    with pytest.raises(OSError, match=r"needs 512\.0 kB .* 1\.0 kB are free"):
        fetch("part/judge", quiet, path=known)
    assert not [path for method, path, _ in hub.requests if "/resolve/" in path]


def test_a_file_of_another_server_is_checked_and_converted(known, tmp_path):
    data = mmdet_file(tmp_path / "a.pth", version="2.x").read_bytes()
    with serving(Hub({"a/b": {"detector.pth": data}})) as server:
        row = (
            "detector:\n  folder: detector\n  licence: MIT\n  source: a file\n  made_by: convert it\n  url:\n"
            f"    address: {server.address}/a/b/resolve/main/detector.pth\n    sha256_prefix: '%s'\n"
            "    convert: mask2former\n  files: {config.json: null, model.safetensors: null}\n"
        )
        known.write_text(row % "00000000")
        with pytest.raises(OSError, match=r"detector\.pth: .*hash"):
            fetch("detector", quiet, path=known)
        registry.cache_clear()
        known.write_text(row % hashlib.sha256(data).hexdigest()[:8])
        folder = fetch("detector", quiet, path=known)
    assert {"config.json", "conversion.json", "model.safetensors"} <= {file.name for file in folder.iterdir()}
