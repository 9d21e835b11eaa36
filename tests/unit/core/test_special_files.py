"""A pipe or a device in the place of a file is refused in one line; nobody waits for it or reads it to its end."""

import importlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from genloop.checkpoint import check_archive, read_header, read_shapes
from genloop.config import ConfigError, load_config, read_yaml
from genloop.data.image_reader import image_size, read_image
from genloop.data.pictures import find_pictures
from genloop.data.prompts import read_prompts
from genloop.data.shards import Sample, Shards, table_path, write_shard
from genloop.ledger import read_rows
from genloop.metrics.statistics import read_statistics
from genloop.rundir import read_run
from jobs import verify

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def _impatient() -> Iterator[None]:
    """A test that waits for a pipe fails."""
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(params=["pipe", "device"])
def make(request: pytest.FixtureRequest) -> Callable[[Path], Path]:
    """Puts something that never ends in a place -> that place."""

    def special(path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        os.mkfifo(path) if request.param == "pipe" else path.symlink_to("/dev/zero")
        return path

    return special


@pytest.mark.parametrize(
    ("job", "key"),
    [
        ("generate", "prompts"),
        ("generate", "metadata"),
        ("generate", "judge.cache"),
        ("generate", "out"),
        ("metrics", "images"),
        ("metrics", "reference"),
        ("train_showo", "shards"),
        ("compare", "a"),
        ("agreement", "runs"),
        ("agreement", "annotations"),
        ("build_judge_data", "conversations"),
        ("build_pairs", "published"),
        ("build_pairs", "held_out"),
        ("report", "runs"),
    ],
)
def test_no_key_of_a_config_takes_it(job: str, key: str, make: Any, tmp_path: Path) -> None:
    place = make(tmp_path / "x")
    model = importlib.import_module(f"jobs.{job}").Config
    given = f"[{place}]" if key in {"annotations", "runs", "held_out"} else f"{place}"
    needed = {
        name: "[y]" if name in {"runs", "held_out"} else "y"
        for name, f in model.model_fields.items()
        if f.is_required()
    }
    needed |= {"metrics": "{clip_score: {checkpoint: c}}"} if job == "metrics" else {}
    words = [f"{name}={value}" for name, value in (needed | {"out": "z"}).items()]
    with pytest.raises(ConfigError, match=f"^{key}: .*x is no regular file or folder"):
        load_config(model, None, [*words, f"{key}={given}"])


READERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "prompts": ("x.txt", lambda path: read_prompts(path)),
    "metadata": ("x.jsonl", lambda path: read_prompts(path)),
    "preset": ("x.yaml", read_yaml),
    "image": ("x.png", read_image),
    "weights": ("model.safetensors", read_header),
    "pickle": ("model.bin", check_archive),
    "folder of weights": ("model.safetensors", lambda path: read_shapes(path.parent)),
    "shard": ("x.tar", Shards),
    "rows": ("rows/00000.jsonl", lambda path: list(read_rows(path.parent.parent))),
    "fingerprint": ("run.json", lambda path: read_run(path.parent)),
    "statistics": ("x.npz", lambda path: read_statistics(path, "mark")),
}


@pytest.mark.parametrize("name", READERS)
def test_no_reader_takes_it(name: str, make: Any, tmp_path: Path) -> None:
    file, read = READERS[name]
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        read(make(tmp_path / file))
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def test_the_table_of_a_shard_is_a_file(make: Any, tmp_path: Path) -> None:
    shard = tmp_path / "0.tar"
    write_shard(shard, [Sample("a", {"txt": b"x"})])
    make(table_path(shard))
    with pytest.raises(ValueError, match="no regular file"):
        Shards(shard)


def test_it_is_no_picture(make: Any, tmp_path: Path) -> None:
    place = make(tmp_path / "0.png")
    assert image_size(place) is None
    with pytest.raises((ValueError, FileNotFoundError)):
        find_pictures(tmp_path)


def test_verify_calls_it_unreadable(make: Any, tmp_path: Path) -> None:
    make(tmp_path / "rows" / "00000.jsonl")
    assert [row["problem"] for row in verify._check_rows(tmp_path, "00000")] == ["unreadable"]
