"""Whole runs of strategies: rows, images and previews have the same bytes for any slots, workers, kills, restarts."""

import json
import signal
from pathlib import Path

import pytest

from genloop.job import parse, prepare
from genloop.ledger import read_rows
from genloop.rewards import JUDGES
from jobs import generate
from tests.runs import contents, start, wait_until
from tests.worlds.tiny_search import SEARCHES

FOLDERS = ("rows", "images", "paths")
KILLED = ["prm step", "parm rank", "parm bisect", "parm++ confidence", "refine", "halving", "knockout", "adaptive"]
WORKER = "tests.worlds.judged_generate"


@pytest.fixture(autouse=True)
def opinions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(JUDGES, "opinions", f"{WORKER}:OpinionsMaker")


def words_of(name: str, out: Path) -> list[str]:
    """Four prompts, an image each, in units of two, all previews kept."""
    strategy, n, options = SEARCHES[name]
    words = [f"search.options.{key}={json.dumps(value)}" for key, value in options.items()]
    words += [f"out={out}", f"search.strategy={strategy}", f"search.n={n}", "limit=4", "unit_size=2"]
    words += ["images_per_prompt=1", "judge.kind=opinions", "previews=judged"]
    return ["tiny", *words, "sampling.steps=6", "sampling.preview=argmax"]


def run_here(words: list[str]) -> None:
    from genloop.distributed import World

    config = parse(generate, words)
    generate.main(config, World(), prepare(generate, config).checked)


@pytest.mark.parametrize("name", KILLED)
def test_slots_kills_and_restarts_change_nothing(name: str, tmp_path: Path) -> None:
    run_here(words_of(name, tmp_path / "quiet"))
    expected = contents(tmp_path / "quiet", FOLDERS)
    assert sum(path.startswith("images") and path.endswith(".png") for path in expected) == 4
    assert sum(path.startswith("paths") for path in expected) == 4
    out = tmp_path / "killed"
    worker = start(WORKER, *words_of(name, out), "slots=1")
    wait_until(lambda: list(out.glob("images/*/samples/*.png")) or worker.poll() is not None)
    worker.send_signal(signal.SIGKILL)
    worker.communicate()
    assert list((out / "leases").iterdir())
    run_here([*words_of(name, out), "slots=5"])
    assert contents(out, FOLDERS) == expected


@pytest.mark.parametrize("world_size", [2, 3])
def test_workers_change_nothing(world_size: int, tmp_path: Path) -> None:
    name = "parm++ confidence"
    run_here(words_of(name, tmp_path / "one"))
    workers = [
        start(WORKER, *words_of(name, tmp_path / "many"), "slots=7", rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    for worker in workers:
        _, errors = worker.communicate(timeout=300)
        assert worker.returncode == 0, errors
    assert contents(tmp_path / "many", FOLDERS) == contents(tmp_path / "one", FOLDERS)


def test_answers_that_are_not_given_are_null_and_lose_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run_here([*words_of("parm rank", tmp_path / "run"), "judge.options.unknown=1.0"])
    rows = list(read_rows(tmp_path / "run"))
    assert len(rows) == 4
    for row in rows:
        assert row["chosen"] == 0
        first = row["candidates"][0]
        assert first["reason"] == "not judged: the judge gave no answer"
        assert first["p_yes"] == {"potential": None, "outcome": None}
        assert first["trace"] == [[1, "potential", None], [3, "potential", None], [6, "outcome", None]]
    assert "unit 00000: the judge gave no answer to 20 of 20 questions" in caplog.text
