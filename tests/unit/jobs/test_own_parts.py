"""Every part may be given as package.module:Class, without a table."""

from pathlib import Path
from types import ModuleType

import pytest

from genloop.job import run_command
from genloop.ledger import read_rows
from jobs import evaluate, generate, metrics
from tests.runs import refusal

OWN = "tests.worlds.own_parts:"
FEW = ["tiny", "limit=2", "images_per_prompt=1", "sampling.steps=3"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images by a generator, a strategy and a judge that are in no table."""
    out = tmp_path_factory.mktemp("own") / "run"
    parts = [f"generator.kind={OWN}PlainGenerator", f"search.strategy={OWN}LastOfN", f"judge.kind={OWN}Contrarian"]
    assert run_command(generate, [*FEW, *parts, "search.n=3", f"out={out}"]) == 0
    return out


def test_generator_strategy_and_judge(run: Path) -> None:
    for row in read_rows(run):
        assert (row["chosen"], row["strategy"]) == (2, f"{OWN}LastOfN")
        assert all(0 <= one["p_yes"]["outcome"] <= 1 for one in row["candidates"])


def test_detector_and_colour_classifier(run: Path, tmp_path: Path) -> None:
    parts = [f"detector={OWN}BlindDetector", f"colors={OWN}OwnColors", "canary=off", "expect.on_missing=report"]
    words = ["tiny", *parts, f"images={run / 'images'}", f"out={tmp_path / 'run'}"]
    assert run_command(evaluate, words) == 0
    assert [row["correct"] for row in read_rows(tmp_path / "run")] == [False, False]


def test_metric(run: Path, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(f"metrics: {{'{OWN}OwnScore': {{}}}}\n")
    words = [str(tmp_path / "own.yaml"), f"images={run / 'images'}", f"out={tmp_path / 'run'}"]
    assert run_command(metrics, words) == 0
    assert all(f"{OWN}OwnScore" in row["scores"] for row in read_rows(tmp_path / "run"))


PLACES: dict[str, tuple[ModuleType, str]] = {
    "generator": (generate, "generator.kind"),
    "strategy": (generate, "search.strategy"),
    "judge": (generate, "judge.kind"),
    "detector": (evaluate, "detector"),
    "colour classifier": (evaluate, "colors"),
}
WRONG = {"nowhere.at.all:Part": "nowhere", f"{OWN}Missing": "Missing", f"{OWN}NoPart": "Options", ":Part": "':Part'"}


@pytest.mark.parametrize("name", list(WRONG))
@pytest.mark.parametrize("place", list(PLACES))
def test_what_leads_to_no_part_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str, name: str
) -> None:
    job, key = PLACES[place]
    error = refusal(job, ["tiny", f"{key}={name}", f"out={tmp_path / 'out'}"], tmp_path, capsys)
    assert key.removesuffix(".kind") in error and WRONG[name] in error
