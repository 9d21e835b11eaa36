"""A request to stop is answered within a unit or a step, whatever kind of job it is, and the run goes on from there."""

from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

import pytest

from genloop.distributed import EXIT_STOPPED, World
from genloop.job import execute, parse, prepare, run_command
from genloop.ledger import finished
from jobs import generate
from launch.watch.status import read_state
from tests.runs import ROOT


@dataclass(frozen=True)
class Interrupted(World):
    """Is asked to stop between two safe points: that before a unit, or of the first step, and the next one."""

    _asked: list[bool] = field(default_factory=list, compare=False)

    def stop_requested(self) -> bool:
        """From the second time on."""
        self._asked.append(True)
        if len(self._asked) > 1:
            self.request_stop()
        return super().stop_requested()


UNITS = {  # job -> words that make one unit of several items
    "generate": ["tiny", "limit=4", "unit_size=4", "sampling.steps=2"],
    "evaluate": [
        "tiny",
        "images={images}",
        "unit_size=4",
        "images_per_batch=1",
        "canary=off",
        "expect.on_missing=report",
    ],
    "metrics": ["tiny", "images={images}", "unit_size=4"],
    "verify": ["tiny", "run={images}", "unit_size=4"],
    "make_shapes": ["tiny", "num_samples=8", "unit_size=8"],
    "evaluate_judges": ["tiny", "limit=4", "unit_size=8"],
    "build_judge_data": ["tiny", "num_scenes=8", "scenes_per_unit=8"],
}
TRAININGS = {"train_showo": ["tiny"], "train_judge": ["tiny"]}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("stopped") / "images"
    assert run_command(generate, ["tiny", "limit=4", "unit_size=1", "sampling.steps=2", f"out={out}"]) == 0
    return out


def stop(job: str, words: list[str], out: Path) -> int:
    """Run a job in this process, interrupted -> exit code."""
    module = import_module(f"jobs.{job}")
    config = parse(module, [*words, f"out={out}"])
    return execute(module, config, Interrupted(), prepare(module, config).checked)


@pytest.mark.parametrize("job", UNITS)
def test_a_job_with_units_stops_within_a_unit(job: str, images: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    assert stop(job, [word.format(images=images) for word in UNITS[job]], tmp_path / "run") == EXIT_STOPPED
    assert not finished(tmp_path / "run") and not list((tmp_path / "run" / "leases").iterdir())
    assert read_state(tmp_path / "run").state == "stopped"


@pytest.mark.parametrize("job", TRAININGS)
def test_a_training_stops_after_its_step_and_says_which(job: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    assert stop(job, TRAININGS[job], tmp_path / "run") == EXIT_STOPPED
    state = read_state(tmp_path / "run")
    assert state.state == "stopped" and state.steps and 0 < state.steps.done < state.steps.total
    assert list((tmp_path / "run" / "checkpoints").glob("step-*"))
